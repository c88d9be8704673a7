/* SPDX-License-Identifier: MIT */
/* keyring_service_status(): the tenant, as JSON with the same members at all times. A keyringd that cannot be asked is an answer
 * ("state": "unknown", and why), not an error: it is then that somebody wants to look. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"

/* Texts of the server and of files, which need not be UTF-8; `` is null. */
static json_t *text(const char *bytes) {
  if (!bytes || !*bytes) return json_null();
  json_t *value = json_string(bytes);
  if (value) return value;
  char *copy = strdup(bytes);
  if (!copy) return NULL;
  for (char *at = copy; *at; at++) {
    if (*at & 0x80) *at = '?';
  }
  value = json_string(copy);
  free(copy);
  return value;
}

/* A reference that json_object_set_new takes, also where it fails. */
static bool put(json_t *object, const char *name, json_t *value) { return value && json_object_set_new(object, name, value) == 0; }

static char *print(json_t *object) {
  char *all = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
  json_decref(object);
  return all;
}

/* `status` NULL: `error` says why there is none. */
static char *report(const struct admin_link *link, const keyring_tenant_status *status, const keyring_error *error) {
  json_t *object = json_object();
  if (!object) return NULL;
  bool good = put(object, "server", text(link->server)) &&
              put(object, "tenant", text(link->keyring ? keyring_tenant(link->keyring) : NULL)) &&
              put(object, "state", text(status ? status->state : "unknown")) &&
              put(object, "reason", text(status ? status->reason : admin_why(error))) &&
              put(object, "cmk_id", text(status ? status->cmk_id : NULL)) &&
              put(object, "keys", status ? json_integer((json_int_t)status->keys) : json_null()) &&
              put(object, "sequence", status ? json_integer((json_int_t)status->sequence) : json_null());
  if (good) return print(object);
  json_decref(object);
  return NULL;
}

char *admin_status_text(void) {
  struct admin_link link;
  keyring_error error = {0};
  keyring_tenant_status status;
  uint64_t ticket = admin_variable_ticket();
  bool known = admin_open(&link, ADMIN_LOOK_MS, &error) && keyring_admin_status(link.keyring, &status, &error) == KEYRING_OK;
  if (known && *status.cmk_id) admin_variable_found(status.cmk_id, ticket);
  char *all = report(&link, known ? &status : NULL, &error);
  admin_close(&link);
  return all;
}
