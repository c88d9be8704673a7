/* SPDX-License-Identifier: MIT */
/* What a component with SQL functions, a variable and a privilege asks of MySQL 9.7; see mysql_component_abi.h. Every function
 * that returns mysql_abi_flag returns true for failure, unless its comment says otherwise. admin_abi_check.cc compares every
 * member with MySQL's headers (make mysql-abi-check). */
#ifndef MYSQL_ADMIN_ABI_H
#define MYSQL_ADMIN_ABI_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mysql_component_abi.h"

/* A session of the server (THD). */
typedef void *mysql_abi_session;
typedef struct Security_context_handle_imp *mysql_abi_security_context;
typedef struct my_h_string_imp *mysql_abi_string;

/* ---- SQL functions ---- */

enum { MYSQL_ABI_STRING_RESULT = 0, MYSQL_ABI_INTEGER_RESULT = 2 };

/* UDF_ARGS */
struct mysql_abi_function_arguments {
  unsigned int count;
  int *types;
  char **values;
  unsigned long *lengths;
  char *maybe_null;
  char **attributes;
  unsigned long *attribute_lengths;
  void *extension;
};

/* UDF_INIT: one use of a function in one statement. `memory` is the function's own. With `is_constant` true the optimizer (and
 * EXPLAIN) may evaluate it. */
struct mysql_abi_function_use {
  bool maybe_null;
  unsigned int decimals;
  unsigned long max_length;
  char *memory;
  bool is_constant;
  void *extension;
};

/* `message` has room for MYSQL_ABI_MESSAGE_SIZE; true refuses the statement with error 1123 and the message. */
enum { MYSQL_ABI_MESSAGE_SIZE = 512 };
typedef bool (*mysql_abi_function_init)(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments,
                                        char *message);
typedef void (*mysql_abi_function_deinit)(struct mysql_abi_function_use *use);
typedef void (*mysql_abi_function_any)(void);
typedef long long (*mysql_abi_function_integer)(struct mysql_abi_function_use *use,
                                                struct mysql_abi_function_arguments *arguments, unsigned char *is_null,
                                                unsigned char *failed);
typedef char *(*mysql_abi_function_string)(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments,
                                           char *result, unsigned long *length, unsigned char *is_null,
                                           unsigned char *failed);

/* `udf_registration`: unregister fails while a statement uses the function. */
struct mysql_abi_functions {
  mysql_abi_status (*add)(const char *name, int result, mysql_abi_function_any function, mysql_abi_function_init init,
                          mysql_abi_function_deinit deinit);
  mysql_abi_status (*remove)(const char *name, int *was_present);
};

/* `mysql_udf_metadata`: `charset` is the kind used here, with the name of one. */
struct mysql_abi_function_metadata {
  mysql_abi_status (*argument_get)(struct mysql_abi_function_arguments *arguments, const char *kind, unsigned int index,
                                   void **value);
  mysql_abi_status (*result_get)(struct mysql_abi_function_use *use, const char *kind, void **value);
  mysql_abi_status (*argument_set)(struct mysql_abi_function_arguments *arguments, const char *kind, unsigned int index,
                                   void *value);
  mysql_abi_status (*result_set)(struct mysql_abi_function_use *use, const char *kind, void *value);
};

/* ---- variables ---- */

enum {
  MYSQL_ABI_VARIABLE_STRING = 0x0005,
  MYSQL_ABI_VARIABLE_NO_DEFAULT = 0x4000 /* SET ... = DEFAULT is refused */
};

/* st_mysql_value: what is to be assigned. get_string returns `buffer` or memory of the statement, NULL for SQL's NULL; `*length`
 * is the buffer's size before, the text's after. */
struct mysql_abi_value {
  int (*kind)(struct mysql_abi_value *value);
  const char *(*get_string)(struct mysql_abi_value *value, char *buffer, int *length);
  int (*get_real)(struct mysql_abi_value *value, double *number);
  int (*get_integer)(struct mysql_abi_value *value, long long *number);
  int (*is_unsigned)(struct mysql_abi_value *value);
};

struct mysql_abi_variable; /* SYS_VAR */

/* Not 0 refuses the value, with error 1231 where the check has raised none. Called for each assignment of a statement, before any
 * update. `save` takes a char * for a string. */
typedef int (*mysql_abi_variable_check)(mysql_abi_session session, struct mysql_abi_variable *variable, void *save,
                                        struct mysql_abi_value *value);
typedef void (*mysql_abi_variable_update)(mysql_abi_session session, struct mysql_abi_variable *variable, void *place,
                                          const void *save);

/* STR_CHECK_ARG */
struct mysql_abi_string_variable {
  char *initial;
};

/* `component_sys_variable_register`: `place` is a char ** for a string. */
struct mysql_abi_variables {
  mysql_abi_status (*add)(const char *component, const char *name, int flags, const char *comment,
                          mysql_abi_variable_check check, mysql_abi_variable_update update, void *kind, void *place);
  mysql_abi_status (*get)(const char *component, const char *name, void **value, size_t *length);
};

/* `component_sys_variable_unregister` */
struct mysql_abi_variables_removal {
  mysql_abi_status (*remove)(const char *component, const char *name);
};

/* `mysql_system_variable_reader`: `*value` is a buffer of `*length` bytes, and both become the value's. */
struct mysql_abi_variable_reader {
  mysql_abi_status (*get)(mysql_abi_session session, const char *scope, const char *component, const char *name, void **value,
                          size_t *length);
};

/* ---- sessions, users, privileges ---- */

/* `mysql_current_thread_reader` */
struct mysql_abi_current_session {
  mysql_abi_status (*get)(mysql_abi_session *session);
};

/* `mysql_thd_attributes`: `sql_text` is a mysql_abi_string, to be destroyed. */
struct mysql_abi_session_attributes {
  mysql_abi_status (*get)(mysql_abi_session session, const char *name, void *value);
  mysql_abi_status (*set)(mysql_abi_session session, const char *name, void *value);
};

/* `mysql_thd_security_context` */
struct mysql_abi_session_security {
  mysql_abi_status (*get)(void *session, mysql_abi_security_context *context);
  mysql_abi_status (*set)(void *session, mysql_abi_security_context context);
};

/* MYSQL_LEX_CSTRING: what `user`, `host_or_ip` and others are. `privilege_super` is one byte. */
struct mysql_abi_text {
  const char *bytes;
  size_t length;
};

/* `mysql_security_context_options` */
struct mysql_abi_security_options {
  mysql_abi_status (*get)(mysql_abi_security_context context, const char *name, void *value);
  mysql_abi_status (*set)(mysql_abi_security_context context, const char *name, void *value);
};

/* `dynamic_privilege_register` */
struct mysql_abi_privileges {
  mysql_abi_status (*add)(const char *name, size_t length);
  mysql_abi_status (*remove)(const char *name, size_t length);
};

/* `global_grants_check`: not 0 where the privilege is granted. */
struct mysql_abi_grants {
  mysql_abi_status (*has)(mysql_abi_security_context context, const char *name, size_t length);
};

/* ---- errors ---- */

enum {
  MYSQL_ABI_ACCESS_DENIED = 1227,   /* ER_SPECIFIC_ACCESS_DENIED_ERROR: what is missing */
  MYSQL_ABI_FUNCTION_FAILED = 3198  /* ER_KEYRING_AWS_UDF_AWS_KMS_ERROR: function, reason */
};

/* `mysql_runtime_error`: the statement's error. */
struct mysql_abi_error {
  void (*emit)(int error, int flags, va_list arguments);
};

/* `mysql_runtime_warning` */
struct mysql_abi_warning {
  void (*emit)(mysql_abi_session session, int error, ...);
  void (*emit_list)(mysql_abi_session session, int error, va_list arguments);
};

/* ---- strings ---- */

/* `mysql_string_factory` */
struct mysql_abi_string_factory {
  mysql_abi_status (*create)(mysql_abi_string *string);
  void (*destroy)(mysql_abi_string string);
};

/* `mysql_string_converter`: what does not fit is cut. */
struct mysql_abi_string_converter {
  mysql_abi_status (*from_buffer)(mysql_abi_string *string, const char *buffer, uint64_t length, const char *charset);
  mysql_abi_status (*to_buffer)(mysql_abi_string string, char *buffer, uint64_t length, const char *charset);
};

#endif
