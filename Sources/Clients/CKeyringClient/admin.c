/* SPDX-License-Identifier: MIT */
/* Calls of a tenant's administrator. */
#include "keyring_admin.h"

#include <stdio.h>
#include <string.h>

#include "call.h"
#include "names.h"

/* The tenant that the certificate administers, as a message wants it. */
static keyring_status tenant_of(keyring *k, char **tenant, failure *f) {
  if (!k) return failure_set(f, KEYRING_BAD_ARGUMENT, "a keyring is needed");
  *tenant = k->credentials.identity.tenant;
  if (!**tenant) return failure_set(f, KEYRING_BAD_ARGUMENT, "the certificate is not one of a tenant's administrator");
  return KEYRING_OK;
}

static keyring_status done(keyring *k, call *c, const failure *f, keyring_error *error) {
  frame_reply_free(&c->reply);
  return f->status == KEYRING_OK ? KEYRING_OK : keyring_fail(k, f, error);
}

/* A text of the server that has to fit: half of a cmk_id is none. */
static void copy_whole(char *to, size_t capacity, const char *from, const char *what, failure *f) {
  if (!names_fits(from, capacity)) {
    failure_set(f, KEYRING_BUFFER_TOO_SMALL, "the %s has %zu bytes, and a NUL", what, from ? strlen(from) : 0);
    return;
  }
  failure_copy_text(to, capacity, from);
}

keyring_status keyring_admin_rotate_cmk(keyring *k, char *cmk_id, size_t cmk_id_capacity, keyring_error *error) {
  failure f = {0};
  Keyring__V1__RotateCmkRequest request = KEYRING__V1__ROTATE_CMK_REQUEST__INIT;
  if (tenant_of(k, &request.tenant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  call c;
  call_init(&c, CALL_ADMINISTRATOR_CHANGE, KEYRING__V1__REQUEST__CALL_ROTATE_CMK, KEYRING__V1__REPLY__RESULT_ROTATE_CMK);
  c.request.rotate_cmk = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (cmk_id) copy_whole(cmk_id, cmk_id_capacity, c.reply.message->rotate_cmk->cmk_id, "cmk_id", &f);
  return done(k, &c, &f, error);
}

keyring_status keyring_admin_rotate_keys(keyring *k, keyring_rotation *rotation, keyring_error *error) {
  failure f = {0};
  Keyring__V1__RotateKeysRequest request = KEYRING__V1__ROTATE_KEYS_REQUEST__INIT;
  if (tenant_of(k, &request.tenant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  call c;
  call_init(&c, CALL_ADMINISTRATOR_CHANGE, KEYRING__V1__REQUEST__CALL_ROTATE_KEYS, KEYRING__V1__REPLY__RESULT_ROTATE_KEYS);
  c.request.rotate_keys = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (rotation) {
    memset(rotation, 0, sizeof *rotation);
    failure_copy_text(rotation->cmk_id, sizeof rotation->cmk_id, c.reply.message->rotate_keys->cmk_id);
    rotation->records = c.reply.message->rotate_keys->records;
  }
  return done(k, &c, &f, error);
}

keyring_status keyring_admin_set(keyring *k, const char *name, const char *value, keyring_persistence persistence, keyring_error *error) {
  failure f = {0};
  Keyring__V1__VariablesSetRequest request = KEYRING__V1__VARIABLES_SET_REQUEST__INIT;
  if (tenant_of(k, &request.tenant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (!name || !*name || !value || (persistence != KEYRING_GLOBAL && persistence != KEYRING_PERSIST)) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "the name of a variable, a value, and global or persist are needed");
    return keyring_fail(k, &f, error);
  }
  if (strnlen(name, 1024) == 1024 || strnlen(value, 65536) == 65536) {
    failure_set(&f, KEYRING_VARIABLE_INVALID, "the name or the value is too long");
    return keyring_fail(k, &f, error);
  }
  request.name = (char *)(uintptr_t)name;
  request.value = (char *)(uintptr_t)value;
  request.persistence = persistence == KEYRING_PERSIST ? KEYRING__V1__PERSISTENCE__PERSIST : KEYRING__V1__PERSISTENCE__GLOBAL;
  call c;
  call_init(&c, CALL_ADMINISTRATOR_CHANGE, KEYRING__V1__REQUEST__CALL_VARIABLES_SET, KEYRING__V1__REPLY__RESULT_VARIABLES_SET);
  c.request.variables_set = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  return done(k, &c, &f, error);
}

keyring_status keyring_admin_get(keyring *k, const char *name, char *value, size_t value_capacity, char source[32], keyring_error *error) {
  failure f = {0};
  Keyring__V1__VariablesListRequest request = KEYRING__V1__VARIABLES_LIST_REQUEST__INIT;
  if (tenant_of(k, &request.tenant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (!name || !value || value_capacity == 0) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "the name of a variable and a place for its value are needed");
    return keyring_fail(k, &f, error);
  }
  call c;
  call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_VARIABLES_LIST, KEYRING__V1__REPLY__RESULT_VARIABLES_LIST);
  c.request.variables_list = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  const Keyring__V1__VariablesListReply *reply = c.reply.message->variables_list;
  const Keyring__V1__Variable *found = NULL;
  for (size_t i = 0; i < reply->n_variables && !found; i++) {
    if (reply->variables[i]->name && strcmp(reply->variables[i]->name, name) == 0) found = reply->variables[i];
  }
  if (!found) failure_set(&f, KEYRING_VARIABLE_INVALID, "there is no variable `%s`", name);
  else copy_whole(value, value_capacity, found->value, "value", &f);
  if (f.status == KEYRING_OK && source) failure_copy_text(source, 32, found->source);
  return done(k, &c, &f, error);
}

static const char *state_name(Keyring__V1__TenantState state) {
  switch ((int)state) {
  case KEYRING__V1__TENANT_STATE__COLD: return "cold";
  case KEYRING__V1__TENANT_STATE__READY: return "ready";
  case KEYRING__V1__TENANT_STATE__DEGRADED: return "degraded";
  case KEYRING__V1__TENANT_STATE__LOCKED: return "locked";
  case KEYRING__V1__TENANT_STATE__QUARANTINED: return "quarantined";
  case KEYRING__V1__TENANT_STATE__DISABLED: return "disabled";
  default: return "unknown";
  }
}

keyring_status keyring_admin_status(keyring *k, keyring_tenant_status *status, keyring_error *error) {
  failure f = {0};
  Keyring__V1__StatusRequest request = KEYRING__V1__STATUS_REQUEST__INIT;
  if (tenant_of(k, &request.tenant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (!status) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a place for the status is needed");
    return keyring_fail(k, &f, error);
  }
  call c;
  call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_STATUS, KEYRING__V1__REPLY__RESULT_STATUS_REPORT);
  c.request.status = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  const Keyring__V1__TenantStatus *tenant = c.reply.message->status_report->tenant;
  if (!tenant || !tenant->summary) {
    failure_set(&f, KEYRING_PROTOCOL, "the server's reply has no status of the tenant");
    return done(k, &c, &f, error);
  }
  memset(status, 0, sizeof *status);
  (void)snprintf(status->state, sizeof status->state, "%s", state_name(tenant->summary->state));
  failure_copy_text(status->reason, sizeof status->reason, tenant->reason);
  failure_copy_text(status->cmk_id, sizeof status->cmk_id, tenant->summary->cmk_id);
  status->sequence = tenant->sequence;
  status->keys = tenant->keys;
  status->connections = tenant->connections;
  return done(k, &c, &f, error);
}
