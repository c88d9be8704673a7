/* SPDX-License-Identifier: MIT */
/* What performance_schema.keyring_component_status shows, and the private service for our second component. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "component.h"

enum { ROWS_MAX = 16, VALUE_SIZE = 1024 };

struct my_h_keyring_component_metadata_iterator_imp {
  struct row {
    const char *key;
    char value[VALUE_SIZE];
  } rows[ROWS_MAX];
  size_t count;
  size_t index;
};

static mysql_abi_status is_initialized(void) {
  struct component_link *link = component_link_peek();
  bool active = link && component_link_is_proven(link);
  component_link_release(link);
  return active;
}

static void add(mysql_abi_metadata_iterator iterator, const char *key, const char *value) {
  if (iterator->count >= ROWS_MAX) return;
  struct row *row = &iterator->rows[iterator->count++];
  row->key = key;
  snprintf(row->value, sizeof row->value, "%s", value);
}

static void add_number(mysql_abi_metadata_iterator iterator, const char *key, uint64_t value) {
  char text[32];
  snprintf(text, sizeof text, "%llu", (unsigned long long)value);
  add(iterator, key, text);
}

static void add_last_error(mysql_abi_metadata_iterator iterator, const struct keyring_service_state *state) {
  char text[VALUE_SIZE] = "";
  time_t seconds = (time_t)(state->last_error_ms / 1000);
  struct tm when;
  if (state->last_error_ms && gmtime_r(&seconds, &when)) {
    size_t used = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ ", &when);
    snprintf(text + used, sizeof text - used, "%s", state->last_error);
  }
  add(iterator, "Last_error", text);
}

static mysql_abi_status metadata_init(mysql_abi_metadata_iterator *iterator) {
  if (!iterator) return 1;
  *iterator = NULL;
  mysql_abi_metadata_iterator made = calloc(1, sizeof *made);
  if (!made) return 1;
  struct keyring_service_state state = {.size = sizeof state};
  component_state(&state);
  add(made, "Component_name", COMPONENT_NAME);
  add(made, "Author", "the keyring authors");
  add(made, "License", "MIT");
  add(made, "Implementation_name", COMPONENT_NAME);
  add(made, "Version", keyring_version());
  add(made, "Component_status", state.status);
  add(made, "Servers", state.servers);
  add(made, "Tenant", state.tenant);
  add(made, "Instance", state.instance);
  add(made, "Scope", state.scope);
  add(made, "Configuration", state.configuration);
  add_number(made, "Cache_ms", state.cache_ms);
  add_number(made, "Cache_outage_ms", state.cache_outage_ms);
  add_number(made, "Failures", state.failures);
  add_last_error(made, &state);
  *iterator = made;
  return 0;
}

static mysql_abi_status metadata_deinit(mysql_abi_metadata_iterator iterator) {
  free(iterator);
  return 0;
}

static const struct row *row_of(const struct my_h_keyring_component_metadata_iterator_imp *iterator) {
  return iterator && iterator->index < iterator->count ? &iterator->rows[iterator->index] : NULL;
}

static mysql_abi_status metadata_is_valid(mysql_abi_metadata_iterator iterator) { return row_of(iterator) != NULL; }

static mysql_abi_status metadata_next(mysql_abi_metadata_iterator iterator) {
  if (!row_of(iterator)) return 1;
  iterator->index++;
  return 0;
}

static mysql_abi_status metadata_get_length(mysql_abi_metadata_iterator iterator, size_t *key_size, size_t *value_size) {
  const struct row *row = row_of(iterator);
  if (!row || !key_size || !value_size) return 1;
  *key_size = strlen(row->key) + 1;
  *value_size = strlen(row->value) + 1;
  return 0;
}

static mysql_abi_status metadata_get(mysql_abi_metadata_iterator iterator, char *key, size_t key_size, char *value,
                                     size_t value_size) {
  const struct row *row = row_of(iterator);
  if (!row || !key || !value || strlen(row->key) >= key_size || strlen(row->value) >= value_size) return 1;
  memcpy(key, row->key, strlen(row->key) + 1);
  memcpy(value, row->value, strlen(row->value) + 1);
  return 0;
}

/* A second component may have been built with a shorter struct. */
static mysql_abi_status admin_state(struct keyring_service_state *state, int ask) {
  if (!state || state->size < sizeof state->size || state->size > sizeof *state) return 1;
  size_t size = state->size;
  struct keyring_service_state whole = {.size = size};
  mysql_abi_status status = component_state_asked(&whole, ask);
  memcpy(state, &whole, size);
  return status;
}

struct mysql_abi_keyring_status component_status_service = {is_initialized};
struct mysql_abi_keyring_metadata_query component_metadata_service = {
    metadata_init, metadata_deinit, metadata_is_valid, metadata_next, metadata_get_length, metadata_get};
struct keyring_service_admin component_admin_service = {admin_state};
