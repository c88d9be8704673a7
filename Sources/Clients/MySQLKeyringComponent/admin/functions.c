/* SPDX-License-Identifier: MIT */
/* The SQL functions: keyring_aws_rotate_cmk() and keyring_aws_rotate_keys(), under the names of MySQL's keyring_aws plugin, and
 * keyring_service_status(). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"

static const char rotate_cmk_name[] = "keyring_aws_rotate_cmk";
static const char rotate_keys_name[] = "keyring_aws_rotate_keys";
static const char status_name[] = "keyring_service_status";

static bool init(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments, char *message) {
  if (arguments->count != 0) {
    snprintf(message, MYSQL_ABI_MESSAGE_SIZE, "The function takes no arguments.");
    return true;
  }
  use->maybe_null = true;
  use->memory = NULL;
  /* Else EXPLAIN would rotate. */
  use->is_constant = false;
  return false;
}

static bool init_text(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments, char *message) {
  if (init(use, arguments, message)) return true;
  char charset[] = "utf8mb4";
  use->max_length = 65535;
  if (admin_mysql_metadata->result_set(use, "charset", charset) == 0) return false;
  snprintf(message, MYSQL_ABI_MESSAGE_SIZE, "The character set of the result cannot be set.");
  return true;
}

static void deinit_text(struct mysql_abi_function_use *use) {
  free(use->memory);
  use->memory = NULL;
}

/* ---- rotations ---- */

/* Says in the log what was done, and where. */
static keyring_status rotate_cmk(const struct admin_link *link, const char *user, keyring_error *error) {
  char cmk_id[ADMIN_CMK_ID_SIZE] = "";
  keyring_status status = keyring_admin_rotate_cmk(link->keyring, cmk_id, sizeof cmk_id, error);
  if (status == KEYRING_OK) {
    admin_log(MYSQL_ABI_SYSTEM, "keyring %s, tenant %s: %s() by %s: the KMS has rotated CMK %s", link->server,
              keyring_tenant(link->keyring), rotate_cmk_name, user, cmk_id);
  }
  return status;
}

static keyring_status rotate_keys(const struct admin_link *link, const char *user, keyring_error *error) {
  keyring_rotation rotation = {"", 0};
  keyring_status status = keyring_admin_rotate_keys(link->keyring, &rotation, error);
  if (status == KEYRING_OK) {
    admin_log(MYSQL_ABI_SYSTEM, "keyring %s, tenant %s: %s() by %s: %llu versions of keys re-encrypted under CMK %s",
              link->server, keyring_tenant(link->keyring), rotate_keys_name, user, (unsigned long long)rotation.records,
              rotation.cmk_id);
  }
  return status;
}

static long long rotate(const char *name, keyring_status (*call)(const struct admin_link *, const char *, keyring_error *),
                        unsigned char *is_null, unsigned char *failed) {
  struct admin_link link;
  keyring_error error = {0};
  char user[ADMIN_USER_SIZE];
  mysql_abi_session session = admin_session();
  *is_null = 1;
  *failed = 1;
  if (!admin_permitted(session)) return 0;
  admin_user(session, user);
  bool done = admin_open(&link, UINT32_MAX, &error) && call(&link, user, &error) == KEYRING_OK;
  admin_close(&link);
  if (!done) {
    admin_log(MYSQL_ABI_ERROR, "%s() by %s failed: %s", name, user, error.message);
    admin_raise(name, admin_why(&error));
    return 0;
  }
  *is_null = 0;
  *failed = 0;
  return 1;
}

static long long rotate_cmk_function(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments,
                                     unsigned char *is_null, unsigned char *failed) {
  (void)use, (void)arguments;
  return rotate(rotate_cmk_name, rotate_cmk, is_null, failed);
}

static long long rotate_keys_function(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments,
                                      unsigned char *is_null, unsigned char *failed) {
  (void)use, (void)arguments;
  return rotate(rotate_keys_name, rotate_keys, is_null, failed);
}

/* ---- status ---- */

static char *status_function(struct mysql_abi_function_use *use, struct mysql_abi_function_arguments *arguments, char *result,
                             unsigned long *length, unsigned char *is_null, unsigned char *failed) {
  (void)arguments, (void)result;
  *is_null = 1;
  *failed = 1;
  *length = 0;
  deinit_text(use);
  if (!admin_permitted(admin_session())) return NULL;
  use->memory = admin_status_text();
  if (!use->memory) {
    admin_raise(status_name, "NO_MEMORY: no memory");
    return NULL;
  }
  *length = strlen(use->memory);
  *is_null = 0;
  *failed = 0;
  return use->memory;
}

/* ---- registration ---- */

static const struct function {
  const char *name;
  int result;
  mysql_abi_function_any function;
  mysql_abi_function_init init;
  mysql_abi_function_deinit deinit;
} functions[] = {
    {rotate_cmk_name, MYSQL_ABI_INTEGER_RESULT, (mysql_abi_function_any)rotate_cmk_function, init, NULL},
    {rotate_keys_name, MYSQL_ABI_INTEGER_RESULT, (mysql_abi_function_any)rotate_keys_function, init, NULL},
    {status_name, MYSQL_ABI_STRING_RESULT, (mysql_abi_function_any)status_function, init_text, deinit_text},
};

enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static bool add(const struct function *function) {
  return admin_mysql_functions->add(function->name, function->result, function->function, function->init, function->deinit) == 0;
}

static bool remove_one(const struct function *function) {
  int was_present = 0;
  return admin_mysql_functions->remove(function->name, &was_present) == 0 || !was_present;
}

bool admin_functions_add(void) {
  for (int i = 0; i < FUNCTIONS; i++) {
    if (add(&functions[i])) continue;
    while (i-- > 0) remove_one(&functions[i]);
    return false;
  }
  return true;
}

bool admin_functions_remove(void) {
  for (int i = 0; i < FUNCTIONS; i++) {
    if (remove_one(&functions[i])) continue;
    while (i-- > 0) add(&functions[i]);
    return false;
  }
  return true;
}
