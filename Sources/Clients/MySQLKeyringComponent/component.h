/* SPDX-License-Identifier: MIT */
/* What the files of component_keyring_service.so share: the configuration, the link to keyringd that is in force, and the log. */
#ifndef COMPONENT_H
#define COMPONENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/keyring_service_private.h"
#include "abi/mysql_keyring_abi.h"
#include "configuration.h"
#include "keyring.h"

#define COMPONENT_NAME "component_keyring_service"

/* ---- link.c ---- */

/* A keyring that is or was in force. Whoever uses it holds a reference, so that RELOAD KEYRING does not close it under them. */
struct component_link {
  keyring *keyring;
  struct component_configuration configuration;
  unsigned references; /* under the lock of link.c, as is `proven` */
  bool proven;         /* some call has succeeded */
};

/* The link in force with a reference for the caller, or NULL, logged as a failure of `operation`: there is no usable
 * configuration. */
struct component_link *component_link_acquire(const char *operation);
/* The same without a word where there is none. */
struct component_link *component_link_peek(void);
/* NULL is allowed. Closes and wipes a link whose last reference this is. */
void component_link_release(struct component_link *link);
/* Puts `link`, with the caller's reference, in force; NULL: none. */
void component_link_install(struct component_link *link);
/* Makes a link, with one reference, of a configuration (which it takes, in any case). NULL: `error` says why. */
struct component_link *component_link_open(struct component_configuration *configuration, keyring_error *error);
bool component_link_is_proven(const struct component_link *link);

/* What became of an operation: counted, and a failure logged. `data_id` may be NULL. */
void component_succeeded(struct component_link *link);
/* An answer that took no key, which keyringd may have while it refuses keys: it ends only failures to reach it. */
void component_answered(struct component_link *link);
/* The same for a fetch, which the cache may have answered: that says nothing about the server. `key` NULL: absent. */
void component_fetched(struct component_link *link, const keyring_key *key);
void component_failed(const struct component_link *link, const char *operation, const char *data_id, const char *auth_id,
                      const keyring_error *error);

/* Fills the part of `state` that needs no server. */
void component_state(struct keyring_service_state *state);
/* As the private service: with `ask` the server is asked. */
mysql_abi_status component_state_asked(struct keyring_service_state *state, int ask);

/* The name of a key in the configured scope. */
keyring_name component_key_name(const char *data_id, const char *auth_id);

/* ---- fetch.c ---- */

/* Fetches a key: true with `*key`, NULL where there is none, and `*link`, to be released after the key. False: cannot tell, logged,
 * and there is nothing to release. */
bool component_fetch(const char *operation, const char *data_id, const char *auth_id, struct component_link **link,
                     keyring_key **key);

/* ---- missing.c ---- */

/* What a fetch that was answered said; a master key of InnoDB's that is absent is remembered, and logged. */
void component_master_key_fetched(const struct component_link *link, const char *data_id, const char *auth_id, bool is_found);
/* False, and logged: this one would take the name of a key that InnoDB's files need and that is missing, or of one before it. */
bool component_master_key_may_be_made(const struct component_link *link, const char *data_id, const char *auth_id);
void component_master_keys_forget(void);

/* ---- log.c ---- */

/* MySQL's registry, through which the error log is found: NULL before init() and after deinit(). */
extern struct mysql_abi_registry *component_registry;

/* One line of MySQL's error log, of stderr where there is none. */
void component_log(enum mysql_abi_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for a failure: the same `kind` (a hash of what failed and how) is printed once in some seconds, then with how often it
 * was left out; and no more than so many kinds in that time. */
void component_log_failure(enum mysql_abi_severity severity, uint64_t kind, const char *line);

/* ---- the services ---- */

extern struct mysql_abi_keyring_load component_load_service;
extern struct mysql_abi_keyring_status component_status_service;
extern struct mysql_abi_keyring_metadata_query component_metadata_service;
extern struct mysql_abi_keyring_reader component_reader_service;
extern struct mysql_abi_keyring_writer component_writer_service;
extern struct mysql_abi_keyring_generator component_generator_service;
extern struct mysql_abi_keyring_keys component_keys_service;
extern struct mysql_abi_keyring_aes component_aes_service;
extern struct keyring_service_admin component_admin_service;

/* load.c: forgets that it has run, so that the next load() waits again. */
void component_load_reset(void);

#endif
