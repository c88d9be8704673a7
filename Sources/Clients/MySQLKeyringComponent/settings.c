/* SPDX-License-Identifier: MIT */
/* The members of a component's configuration: libkeyring's settings by their names, and load_wait_ms. A member that nobody
 * knows is an error: a misspelt "cache_ms" must not leave the cache off in silence. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configuration.h"

enum { LOAD_WAIT_MS_MAX = 600000 };

static const struct component_setting *find(const char *name) {
  const struct component_setting *setting = component_dialect.settings;
  for (; setting->kind != SETTING_END; setting++) {
    if (strcmp(setting->name, name) == 0) return setting;
  }
  return NULL;
}

static bool fail(char reason[COMPONENT_REASON_SIZE], const char *name, const char *what) {
  snprintf(reason, COMPONENT_REASON_SIZE, "\"%.64s\" %s", name, what);
  return false;
}

/* True where `text` went into `buffer` whole. */
static bool put(char *buffer, size_t size, const char *text) {
  int length = snprintf(buffer, size, "%s", text);
  return length >= 0 && (size_t)length < size;
}

static bool join_servers(const json_t *value, char *buffer, size_t size) {
  if (json_is_string(value)) return put(buffer, size, json_string_value(value));
  if (!json_is_array(value)) return false;
  size_t used = 0;
  buffer[0] = 0;
  for (size_t i = 0; i < json_array_size(value); i++) {
    const char *one = json_string_value(json_array_get(value, i));
    if (!one) return false;
    int length = snprintf(buffer + used, size - used, "%s%s", i ? "," : "", one);
    if (length < 0 || (size_t)length >= size - used) return false;
    used += (size_t)length;
  }
  return used > 0;
}

static bool file_name(const json_t *value, const char *folder, char *buffer, size_t size) {
  const char *name = json_string_value(value);
  if (!name || !*name) return false;
  if (name[0] == '/') return put(buffer, size, name);
  int length = snprintf(buffer, size, "%s/%s", folder, name);
  return length >= 0 && (size_t)length < size;
}

/* The value as libkeyring wants it. False: it is not of the setting's kind, or too long. */
static bool text_of(const struct component_setting *setting, const json_t *value, const char *folder, char *buffer, size_t size) {
  switch (setting->kind) {
    case SETTING_END: return false;
    case SETTING_SERVERS: return join_servers(value, buffer, size);
    case SETTING_FILE: return file_name(value, folder, buffer, size);
    case SETTING_TEXT: return json_is_string(value) && put(buffer, size, json_string_value(value));
    case SETTING_BOOLEAN: return json_is_boolean(value) && put(buffer, size, json_is_true(value) ? "true" : "false");
    case SETTING_NUMBER:
      if (!json_is_integer(value)) return false;
      return snprintf(buffer, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value)) > 0;
  }
  return false;
}

static const char *wanted(enum component_setting_kind kind) {
  switch (kind) {
    case SETTING_END: break;
    case SETTING_SERVERS: return "must be a string \"host:port\", or an array of such";
    case SETTING_FILE: return "must be the name of a file, as a string";
    case SETTING_TEXT: return "must be a string";
    case SETTING_BOOLEAN: return "must be true or false";
    case SETTING_NUMBER: return "must be a whole number, without quotes";
  }
  return "cannot be used";
}

/* What the component says of its own settings later. */
static void note(const struct component_setting *setting, const char *text, struct component_configuration *into) {
  uint64_t number = setting->kind == SETTING_NUMBER ? strtoull(text, NULL, 10) : 0;
  const char *name = setting->name;
  if (setting->kind == SETTING_SERVERS) put(into->servers, sizeof into->servers, text);
  if (strcmp(name, "scope") == 0) put(into->scope, sizeof into->scope, text);
  if (strcmp(name, "certificate") == 0) put(into->files[0], sizeof into->files[0], text);
  if (strcmp(name, "key") == 0) put(into->files[1], sizeof into->files[1], text);
  if (strcmp(name, "ca") == 0) put(into->files[2], sizeof into->files[2], text);
  if (strcmp(name, "timeout_ms") == 0) into->timeout_ms = number;
  if (strcmp(name, "cache_ms") == 0) into->cache_ms = number;
  if (strcmp(name, "cache_outage_ms") == 0) into->cache_outage_ms = number;
}

/* Hands a setting to libkeyring, which says what is wrong with it. load_wait_ms is the component's own. */
static bool set(const struct component_setting *setting, const char *text, struct component_configuration *into,
                char reason[COMPONENT_REASON_SIZE]) {
  if (strcmp(setting->name, "load_wait_ms") == 0) {
    if (text[0] == '-' || strtoull(text, NULL, 10) > LOAD_WAIT_MS_MAX) {
      return fail(reason, setting->name, "must be from 0 to 600000");
    }
    into->load_wait_ms = strtoull(text, NULL, 10);
    return true;
  }
  keyring_error error = {0};
  if (keyring_config_set(into->config, setting->name, text, &error) != KEYRING_OK) {
    return fail(reason, setting->name, error.message);
  }
  note(setting, text, into);
  return true;
}

static bool apply_one(const char *name, const json_t *value, const char *folder, struct component_configuration *into,
                      char reason[COMPONENT_REASON_SIZE]) {
  const struct component_setting *setting = find(name);
  if (!setting) return fail(reason, name, "is not a setting of this component");
  char text[sizeof into->servers];
  size_t size = setting->kind == SETTING_FILE ? sizeof into->files[0] : sizeof text;
  if (!text_of(setting, value, folder, text, size)) return fail(reason, name, wanted(setting->kind));
  return set(setting, text, into, reason);
}

bool component_settings_apply(const struct json_t *root, const char *folder, struct component_configuration *configuration,
                              char reason[COMPONENT_REASON_SIZE]) {
  const struct component_setting *setting = component_dialect.settings;
  for (; setting->kind != SETTING_END; setting++) {
    if (setting->initial && !set(setting, setting->initial, configuration, reason)) return false;
  }
  const char *name;
  json_t *value;
  /* json_object_foreach wants an object that may be changed; nothing here changes it. */
  json_object_foreach((json_t *)root, name, value) {
    if (strcmp(name, "read_local_config") == 0 && json_is_false(value)) continue;
    if (!apply_one(name, value, folder, configuration, reason)) return false;
  }
  return true;
}
