/* SPDX-License-Identifier: MIT */
/* From mariadbd's start to its end. A plugin that could not fetch the system key must not come up: InnoDB would take tables for damaged.
 * So the start waits for the service for a while, and then fails. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

enum { RETRY_FIRST_MS = 100, RETRY_MOST_MS = 2000 };

struct plugin_settings plugin_settings;
keyring *plugin_keyring;

keyring_name plugin_key_name(unsigned id, char buffer[PLUGIN_KEY_NAME_SIZE]) {
  snprintf(buffer, PLUGIN_KEY_NAME_SIZE, "%.*s%u", PLUGIN_KEY_PREFIX_MAX, plugin_settings.key_prefix, id);
  return keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, buffer);
}

/* ---- the configuration ---- */

static bool set(keyring_config *config, const char *name, const char *option, const char *value, keyring_error *error) {
  keyring_error refused = {0};
  if (!value || !*value) {
    *error = (keyring_error){.status = KEYRING_BAD_ARGUMENT};
    snprintf(error->message, sizeof error->message, "keyring_key_management_%s is not set", option);
    return false;
  }
  if (keyring_config_set(config, name, value, &refused) == KEYRING_OK) return true;
  *error = (keyring_error){.status = refused.status};
  snprintf(error->message, sizeof error->message, "keyring_key_management_%s: %.600s", option, refused.message);
  return false;
}

static bool set_seconds(keyring_config *config, const char *name, const char *option, unsigned seconds, keyring_error *error) {
  char text[32];
  snprintf(text, sizeof text, "%u000", seconds);
  return set(config, name, option, text, error);
}

static bool set_all(keyring_config *config, keyring_error *error) {
  const struct plugin_settings *s = &plugin_settings;
  if (!s->key_prefix || !*s->key_prefix || strlen(s->key_prefix) > PLUGIN_KEY_PREFIX_MAX) {
    *error = (keyring_error){.status = KEYRING_BAD_ARGUMENT};
    snprintf(error->message, sizeof error->message, "keyring_key_management_key_prefix must have 1 to %d bytes",
             PLUGIN_KEY_PREFIX_MAX);
    return false;
  }
  return set(config, "servers", "servers", s->servers, error) &&
         set(config, "certificate", "certificate", s->certificate, error) && set(config, "key", "key", s->key, error) &&
         set(config, "ca", "ca", s->ca, error) && set(config, "scope", "scope", s->scope, error) &&
         set_seconds(config, "timeout_ms", "timeout", s->timeout_seconds, error) &&
         set_seconds(config, "connect_timeout_ms", "connect_timeout", s->connect_timeout_seconds, error) &&
         set(config, "allow_unlocked_memory", "allow_unlocked_memory", s->allow_unlocked_memory ? "true" : "false", error);
}

static bool open_keyring(keyring_error *error) {
  keyring_config *config = keyring_config_new();
  if (!config) {
    *error = (keyring_error){.status = KEYRING_NO_MEMORY, .message = "no memory"};
    return false;
  }
  bool good = set_all(config, error) && keyring_open(config, &plugin_keyring, error) == KEYRING_OK;
  keyring_config_free(config);
  return good;
}

/* ---- the system key ---- */

static keyring_status fetch_system_key(keyring_error *error) {
  keyring_status status = plugin_fetch(PLUGIN_KEY_ID_SYSTEM, 0, error);
  if (status != KEYRING_KEY_ABSENT || !plugin_settings.create) return status;
  status = plugin_create(PLUGIN_KEY_ID_SYSTEM, error);
  return status == KEYRING_OK ? plugin_fetch(PLUGIN_KEY_ID_SYSTEM, 0, error) : status;
}

/* mariadbd blocks these until its start is over: without a look, whoever stops it would wait as long as we do. */
static bool is_told_to_end(void) {
  sigset_t pending;
  return sigpending(&pending) == 0 &&
         (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGQUIT) == 1);
}

static bool wait_for_system_key(keyring_error *error) {
  uint64_t end = plugin_clock_ms() + (uint64_t)plugin_settings.wait_seconds * 1000;
  uint64_t pause = RETRY_FIRST_MS;
  for (bool is_first = true;; is_first = false) {
    keyring_status status = fetch_system_key(error);
    if (status == KEYRING_OK) return true;
    uint64_t now = plugin_clock_ms();
    if (!keyring_status_is_passing(status) || now >= end) return false;
    if (is_first) plugin_log(PLUGIN_WARNING, "%s; waits for at most %u s", error->message, plugin_settings.wait_seconds);
    if (is_told_to_end()) {
      plugin_log(PLUGIN_WARNING, "does not wait any longer for keyring: the server is told to end");
      return false;
    }
    if (pause > end - now) pause = end - now;
    struct timespec time = {(time_t)(pause / 1000), (long)(pause % 1000) * 1000000};
    nanosleep(&time, NULL);
    pause = pause * 2 < RETRY_MOST_MS ? pause * 2 : RETRY_MOST_MS;
  }
}

static uint64_t preload_end_ms;

static bool is_preloaded_enough(void) { return plugin_clock_ms() >= preload_end_ms || is_told_to_end(); }

/* A start does not depend on it. It takes at most as long as waiting for keyringd may, once more, and a call that is under way. */
static void preload(void) {
  keyring_error error = {0};
  preload_end_ms = plugin_clock_ms() + ((uint64_t)plugin_settings.timeout_seconds + plugin_settings.wait_seconds) * 1000;
  if (plugin_preload(is_preloaded_enough, &error) == KEYRING_OK) return;
  plugin_log(PLUGIN_WARNING, "%s (fetching the keys that nobody has asked for yet; tried again)", error.message);
}

static void say_what_to_do(const keyring_error *error) {
  char name[PLUGIN_KEY_NAME_SIZE];
  plugin_key_name(PLUGIN_KEY_ID_SYSTEM, name);
  if (error->status == KEYRING_KEY_ABSENT) {
    /* In a line of its own, which the length of the reason does not cut. */
    plugin_log(PLUGIN_ERROR, "%s", error->message);
    plugin_log(PLUGIN_ERROR,
               "A new server: make the key with `keyringctl key generate %s --type AES --length 32%s`, or start once with "
               "keyring_key_management_create=ON. A server that has encrypted before: bring its key back",
               name, strcmp(plugin_settings.scope, "shared") == 0 ? " --shared" : "");
  } else {
    plugin_log(PLUGIN_ERROR, "%s. There are no keys: encrypted tables cannot be opened", error->message);
  }
}

static void say_started(void) {
  char name[PLUGIN_KEY_NAME_SIZE];
  plugin_key_name(PLUGIN_KEY_ID_SYSTEM, name);
  plugin_log(PLUGIN_NOTE, "keyring %s, tenant %s, instance %s: encryption keys are %.*s<id> in scope %s; key %s has version %u",
             plugin_settings.servers, keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring), PLUGIN_KEY_PREFIX_MAX,
             plugin_settings.key_prefix, plugin_settings.scope, name,
             plugin_memory_latest(plugin_memory_find(PLUGIN_KEY_ID_SYSTEM)));
}

bool plugin_start(void) {
  keyring_error error = {0};
  if (!open_keyring(&error)) {
    plugin_log(PLUGIN_ERROR, "%s", error.message);
    return false;
  }
  if (!wait_for_system_key(&error)) {
    say_what_to_do(&error);
    plugin_stop();
    return false;
  }
  preload();
  if (!plugin_refresh_start()) {
    plugin_log(PLUGIN_ERROR, "no thread can be started");
    plugin_stop();
    return false;
  }
  say_started();
  return true;
}

void plugin_stop(void) {
  plugin_refresh_stop();
  plugin_memory_clear();
  plugin_questions_forget();
  plugin_preload_forget();
  plugin_state_reset();
  plugin_log_reset();
  keyring_close(plugin_keyring);
  plugin_keyring = NULL;
}
