/* SPDX-License-Identifier: MIT */
/* The members of component_keyring_service.cnf: libkeyring's settings by their names, and load_wait_ms. A member that nobody
 * knows is an error: a misspelt "cache_ms" must not leave the cache off in silence. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "component.h"

enum kind { TEXT, FILE_NAME, SERVERS, NUMBER, BOOLEAN };

static const struct setting {
  const char *name;
  enum kind kind;
} known[] = {
    {"servers", SERVERS},        {"certificate", FILE_NAME},   {"key", FILE_NAME},
    {"ca", FILE_NAME},           {"scope", TEXT},              {"timeout_ms", NUMBER},
    {"connect_timeout_ms", NUMBER}, {"connections", NUMBER},   {"cache_ms", NUMBER},
    {"cache_outage_ms", NUMBER}, {"cache_keys", NUMBER},       {"allow_unlocked_memory", BOOLEAN},
    {"load_wait_ms", NUMBER},
};

enum { KNOWN_COUNT = sizeof known / sizeof known[0], LOAD_WAIT_MS_MAX = 600000 };

static const struct setting *find(const char *name) {
  for (size_t i = 0; i < KNOWN_COUNT; i++) {
    if (strcmp(known[i].name, name) == 0) return &known[i];
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
static bool text_of(const struct setting *setting, const json_t *value, const char *folder, char *buffer, size_t size) {
  switch (setting->kind) {
    case SERVERS: return join_servers(value, buffer, size);
    case FILE_NAME: return file_name(value, folder, buffer, size);
    case TEXT: return json_is_string(value) && put(buffer, size, json_string_value(value));
    case BOOLEAN: return json_is_boolean(value) && put(buffer, size, json_is_true(value) ? "true" : "false");
    case NUMBER:
      if (!json_is_integer(value)) return false;
      return snprintf(buffer, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value)) > 0;
  }
  return false;
}

static const char *wanted(enum kind kind) {
  switch (kind) {
    case SERVERS: return "must be a string \"host:port\", or an array of such";
    case FILE_NAME: return "must be the name of a file, as a string";
    case TEXT: return "must be a string";
    case BOOLEAN: return "must be true or false";
    case NUMBER: return "must be a whole number, without quotes";
  }
  return "cannot be used";
}

/* What the component says of its own settings later. */
static void note(const struct setting *setting, const char *text, const json_t *value, struct component_configuration *into) {
  uint64_t number = json_is_integer(value) ? (uint64_t)json_integer_value(value) : 0;
  const char *name = setting->name;
  if (setting->kind == SERVERS) put(into->servers, sizeof into->servers, text);
  if (strcmp(name, "scope") == 0) put(into->scope, sizeof into->scope, text);
  if (strcmp(name, "certificate") == 0) put(into->files[0], sizeof into->files[0], text);
  if (strcmp(name, "key") == 0) put(into->files[1], sizeof into->files[1], text);
  if (strcmp(name, "ca") == 0) put(into->files[2], sizeof into->files[2], text);
  if (strcmp(name, "timeout_ms") == 0) into->timeout_ms = number;
  if (strcmp(name, "cache_ms") == 0) into->cache_ms = number;
  if (strcmp(name, "cache_outage_ms") == 0) into->cache_outage_ms = number;
}

static bool apply_one(const char *name, const json_t *value, const char *folder, struct component_configuration *into,
                      char reason[COMPONENT_REASON_SIZE]) {
  const struct setting *setting = find(name);
  if (!setting) return fail(reason, name, "is not a setting of this component");
  char text[sizeof into->servers];
  size_t size = setting->kind == FILE_NAME ? sizeof into->files[0] : sizeof text;
  if (!text_of(setting, value, folder, text, size)) return fail(reason, name, wanted(setting->kind));
  if (strcmp(name, "load_wait_ms") == 0) {
    json_int_t wait = json_integer_value(value);
    if (wait < 0 || wait > LOAD_WAIT_MS_MAX) return fail(reason, name, "must be from 0 to 600000");
    into->load_wait_ms = (uint64_t)wait;
    return true;
  }
  keyring_error error = {0};
  if (keyring_config_set(into->config, name, text, &error) != KEYRING_OK) return fail(reason, name, error.message);
  note(setting, text, value, into);
  return true;
}

/* The defaults that differ from libkeyring's: a start of mysqld fetches one master key once for each encrypted tablespace. */
static bool apply_defaults(struct component_configuration *into, char reason[COMPONENT_REASON_SIZE]) {
  keyring_error error = {0};
  into->timeout_ms = 5000;
  into->cache_ms = 10000;
  into->load_wait_ms = 10000;
  put(into->scope, sizeof into->scope, "instance");
  if (keyring_config_set(into->config, "timeout_ms", "5000", &error) == KEYRING_OK &&
      keyring_config_set(into->config, "cache_ms", "10000", &error) == KEYRING_OK)
    return true;
  snprintf(reason, COMPONENT_REASON_SIZE, "%s", error.message);
  return false;
}

bool component_settings_apply(const struct json_t *root, const char *folder, struct component_configuration *configuration,
                              char reason[COMPONENT_REASON_SIZE]) {
  if (!apply_defaults(configuration, reason)) return false;
  const char *name;
  json_t *value;
  /* json_object_foreach wants an object that may be changed; nothing here changes it. */
  json_object_foreach((json_t *)root, name, value) {
    if (strcmp(name, "read_local_config") == 0 && json_is_false(value)) continue;
    if (!apply_one(name, value, folder, configuration, reason)) return false;
  }
  return true;
}
