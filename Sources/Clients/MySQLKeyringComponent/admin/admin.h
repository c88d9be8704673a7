/* SPDX-License-Identifier: MIT */
/* What the files of component_keyring_service_admin.so share. MySQL's services come with INSTALL COMPONENT and stay until
 * UNINSTALL; nothing else is held between two statements: each reads the configuration, connects, calls and closes, so that
 * there is no state to reload, no socket across a fork and nothing to stop. */
#ifndef ADMIN_H
#define ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configuration.h"
#include "keyring_admin.h"
#include "mysql_admin_abi.h"

#define ADMIN_NAME "component_keyring_service_admin"
#define ADMIN_PRIVILEGE "KEYRING_SERVICE_ADMIN"
#define ADMIN_VARIABLE "cmk_id"
#define ADMIN_CMK_ID_SIZE sizeof(((keyring_tenant_status *)0)->cmk_id)

/* ---- component.c: MySQL's services ---- */

extern struct mysql_abi_registry *admin_registry;
extern struct mysql_abi_functions *admin_mysql_functions;
extern struct mysql_abi_function_metadata *admin_mysql_metadata;
extern struct mysql_abi_variables *admin_mysql_variables;
extern struct mysql_abi_variables_removal *admin_mysql_removal;
extern struct mysql_abi_variable_reader *admin_mysql_reader;
extern struct mysql_abi_current_session *admin_mysql_current;
extern struct mysql_abi_session_attributes *admin_mysql_attributes;
extern struct mysql_abi_session_security *admin_mysql_security;
extern struct mysql_abi_security_options *admin_mysql_options;
extern struct mysql_abi_privileges *admin_mysql_privileges;
extern struct mysql_abi_grants *admin_mysql_grants;
extern struct mysql_abi_error *admin_mysql_error;
extern struct mysql_abi_warning *admin_mysql_warning;
extern struct mysql_abi_error_log *admin_mysql_log;
extern struct mysql_abi_string_factory *admin_mysql_strings;
extern struct mysql_abi_string_converter *admin_mysql_converter;

/* ---- session.c ---- */

#define ADMIN_USER_SIZE 320

/* One line of the error log. */
void admin_log(enum mysql_abi_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The session that runs on this thread; NULL: none. */
mysql_abi_session admin_session(void);
/* True where the session's user has SUPER or KEYRING_SERVICE_ADMIN; else error 1227 is raised. */
bool admin_permitted(mysql_abi_session session);
/* `'user'@'host'`, printable. */
void admin_user(mysql_abi_session session, char user[ADMIN_USER_SIZE]);
/* Error 3198: `Function NAME failed due to: WHY.` */
void admin_raise(const char *name, const char *why);
/* The same as a warning, which accompanies another error. */
void admin_warn(mysql_abi_session session, const char *name, const char *why);
/* The text of the statement, NUL-terminated. False: it is not known, or longer than `size`. */
bool admin_statement(mysql_abi_session session, char *text, size_t size);

/* ---- service.c ---- */

/* The configuration's keyring, to be closed with admin_close; NULL: `error` says why. Calls end after `limit_ms`, where that is
 * less than the configured time. */
struct admin_link {
  keyring *keyring;
  char server[300]; /* as configured */
};
bool admin_open(struct admin_link *link, unsigned limit_ms, keyring_error *error);
void admin_close(struct admin_link *link);
/* `REASON: text`, without the beginning that says which keyring. */
const char *admin_why(const keyring_error *error);
/* A question, as opposed to a change, does not keep its session longer. */
enum { ADMIN_LOOK_MS = 5000 };

/* ---- statement.c ---- */

enum admin_scope { ADMIN_UNCLEAR, ADMIN_GLOBAL, ADMIN_PERSIST };

/* How a SET statement that assigns to `component`.`variable` and to nothing else does it. */
enum admin_scope admin_scope_of(const char *statement, const char *component, const char *variable);

/* ---- variable.c ---- */

bool admin_variable_add(void);
bool admin_variable_remove(void);
/* Lets go of the values that were shown: after the variable's removal. */
void admin_variable_forget(void);
/* What a look at keyringd began at this moment is worth: to be given to admin_variable_show. */
uint64_t admin_variable_ticket(void);
/* Shows a cmk_id (NULL: unknown), unless one that was looked up later is shown. */
void admin_variable_show(const char *cmk_id, uint64_t ticket);
/* The same for one that was found in force: where my.cnf or mysqld-auto.cnf says another, that is logged, once. */
void admin_variable_found(const char *cmk_id, uint64_t ticket);
/* The end of the installation: says where a value of my.cnf or mysqld-auto.cnf is not the one in force. */
void admin_variable_begin(void);

/* ---- functions.c, status.c ---- */

bool admin_functions_add(void);
/* False where a statement uses one: then all of them are there as before. */
bool admin_functions_remove(void);

/* The tenant as JSON, to be freed; NULL: no memory. Always says something: a server that does not answer is in it. */
char *admin_status_text(void);

#endif
