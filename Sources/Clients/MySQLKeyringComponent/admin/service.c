/* SPDX-License-Identifier: MIT */
/* The way to keyringd, made anew for each statement: it sees the configuration and the certificate as they are now. */
#include <stdio.h>
#include <string.h>

#include "admin.h"

/* MySQL's own variable, with a '/' at the end or without. */
static bool folder_of(const char *variable, char *folder, size_t size) {
  void *value = folder;
  size_t length = size - 1;
  if (admin_mysql_reader->get(NULL, "GLOBAL", "mysql_server", variable, &value, &length) != 0 || !value) return false;
  if (length >= size) return false;
  if (value != folder) memmove(folder, value, length);
  folder[length] = 0;
  return true;
}

static bool refuse(keyring_error *error, const char *why) {
  error->status = KEYRING_BAD_CONFIGURATION;
  error->retry_after_ms = 0;
  snprintf(error->message, sizeof error->message, "keyring: %s: %.700s", keyring_status_name(error->status), why);
  return false;
}

static bool bound(struct component_configuration *configuration, unsigned limit_ms, keyring_error *error) {
  char text[16];
  if (configuration->timeout_ms <= limit_ms) return true;
  snprintf(text, sizeof text, "%u", limit_ms);
  return keyring_config_set(configuration->config, "timeout_ms", text, error) == KEYRING_OK;
}

bool admin_open(struct admin_link *link, unsigned limit_ms, keyring_error *error) {
  char plugins[512], data[512], reason[COMPONENT_REASON_SIZE];
  struct component_configuration configuration;
  *link = (struct admin_link){NULL, ""};
  if (!folder_of("plugin_dir", plugins, sizeof plugins) || !folder_of("datadir", data, sizeof data)) {
    return refuse(error, "MySQL does not say where plugin_dir and datadir are");
  }
  if (!component_configuration_read(plugins, data, &configuration, reason)) return refuse(error, reason);
  snprintf(link->server, sizeof link->server, "%.299s", configuration.servers);
  bool good = bound(&configuration, limit_ms, error) &&
              keyring_open(configuration.config, &link->keyring, error) == KEYRING_OK;
  component_configuration_free(&configuration);
  return good;
}

void admin_close(struct admin_link *link) {
  keyring_close(link->keyring);
  link->keyring = NULL;
}

const char *admin_why(const keyring_error *error) {
  const char *name = keyring_status_name(error->status);
  const char *found = strstr(error->message, name);
  /* A tenant cannot be called like a status: its name is in lower case. */
  return found ? found : error->message;
}
