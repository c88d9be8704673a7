/* SPDX-License-Identifier: MIT */
/* Settings: names, what they may be, and their defaults. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

keyring_config *keyring_config_new(void) {
  keyring_config *config = calloc(1, sizeof *config);
  if (!config) return NULL;
  config->scope = KEYRING_SCOPE_INSTANCE;
  config->timeout_ms = 5000;
  config->connect_timeout_ms = 2000;
  config->connections = 4;
  config->cache_keys = 64;
  return config;
}

void config_clear(keyring_config *config) {
  free(config->certificate);
  free(config->key);
  free(config->ca);
  config->certificate = config->key = config->ca = NULL;
}

void keyring_config_free(keyring_config *config) {
  if (!config) return;
  config_clear(config);
  free(config);
}

static bool copy_string(char **to, const char *from) {
  *to = from ? strdup(from) : NULL;
  return !from || *to;
}

bool config_copy(keyring_config *to, const keyring_config *from) {
  *to = *from;
  to->certificate = to->key = to->ca = NULL;
  if (copy_string(&to->certificate, from->certificate) && copy_string(&to->key, from->key) && copy_string(&to->ca, from->ca)) return true;
  config_clear(to);
  return false;
}

/* `fe80::1%eth0`: which interface is judged when it is dialled. */
static bool is_address(const char *host) {
  unsigned char address[sizeof(struct in6_addr)];
  char plain[INET6_ADDRSTRLEN];
  size_t length = strcspn(host, "%");
  if (length >= sizeof plain || strcmp(host + length, "%") == 0) return false;
  memcpy(plain, host, length);
  plain[length] = 0;
  return inet_pton(AF_INET6, plain, address) == 1 || (!host[length] && inet_pton(AF_INET, plain, address) == 1);
}

/* `host:port` or `[address]:port`, of `length` bytes. */
static bool parse_server(const char *text, size_t length, config_server *server) {
  const char *colon = memrchr(text, ':', length);
  if (!colon) return false;
  const char *host = text, *host_end = colon;
  if (length > 0 && text[0] == '[') {
    if (colon < text + 3 || colon[-1] != ']') return false;
    host = text + 1;
    host_end = colon - 1;
  } else if (memchr(text, ':', (size_t)(colon - text))) {
    return false;
  }
  size_t host_length = (size_t)(host_end - host), port_length = length - (size_t)(colon + 1 - text);
  if (host_length == 0 || host_length >= sizeof server->host || port_length == 0 || port_length > 5) return false;
  for (size_t i = 0; i < host_length; i++) {
    if ((unsigned char)host[i] <= ' ' || (unsigned char)host[i] >= 0x7f || host[i] == '[' || host[i] == ']') return false;
  }
  unsigned long port = 0;
  for (size_t i = 0; i < port_length; i++) {
    char c = colon[1 + i];
    if (c < '0' || c > '9') return false;
    port = port * 10 + (unsigned long)(c - '0');
  }
  if (port == 0 || port > 65535) return false;
  memset(server, 0, sizeof *server);
  memcpy(server->host, host, host_length);
  memcpy(server->port, colon + 1, port_length);
  return host == text || is_address(server->host);
}

static keyring_status set_servers(keyring_config *config, const char *value, failure *f) {
  config_server servers[CONFIG_SERVERS_MOST];
  size_t count = 0;
  for (const char *at = value;; at++) {
    size_t length = strcspn(at, ",");
    size_t first = strspn(at, " \t"), last = length;
    while (last > first && (at[last - 1] == ' ' || at[last - 1] == '\t')) last--;
    if (first > last) first = last;
    if (count == CONFIG_SERVERS_MOST) return failure_set(f, KEYRING_BAD_ARGUMENT, "servers: at most %d", CONFIG_SERVERS_MOST);
    if (!parse_server(at + first, last - first, &servers[count++])) {
      return failure_set(f, KEYRING_BAD_ARGUMENT, "servers: `%.*s` is not host:port or [address]:port", (int)(last - first), at + first);
    }
    at += length;
    if (!*at) break;
  }
  memcpy(config->servers, servers, sizeof servers);
  config->server_count = count;
  return KEYRING_OK;
}

static keyring_status set_path(char **setting, const char *name, const char *value, failure *f) {
  if (!*value) return failure_set(f, KEYRING_BAD_ARGUMENT, "%s: the path of a PEM file", name);
  char *copy = strdup(value);
  if (!copy) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  free(*setting);
  *setting = copy;
  return KEYRING_OK;
}

/* `*number` stays as it was where it fails. */
static keyring_status set_number(int64_t *number, const char *name, const char *value, int64_t least, int64_t most, failure *f) {
  char *end = NULL;
  errno = 0;
  long long parsed = *value >= '0' && *value <= '9' ? strtoll(value, &end, 10) : -1;
  if (errno != 0 || !end || *end || parsed < least || parsed > most) {
    return failure_set(f, KEYRING_BAD_ARGUMENT, "%s: a number from %lld to %lld", name, (long long)least, (long long)most);
  }
  *number = parsed;
  return KEYRING_OK;
}

static keyring_status set_int(int *number, const char *name, const char *value, int least, int most, failure *f) {
  int64_t parsed = *number;
  keyring_status status = set_number(&parsed, name, value, least, most, f);
  *number = (int)parsed;
  return status;
}

static keyring_status set_scope(keyring_config *config, const char *value, failure *f) {
  if (strcmp(value, "instance") == 0) config->scope = KEYRING_SCOPE_INSTANCE;
  else if (strcmp(value, "shared") == 0) config->scope = KEYRING_SCOPE_SHARED;
  else return failure_set(f, KEYRING_BAD_ARGUMENT, "scope: `instance` or `shared`");
  return KEYRING_OK;
}

static keyring_status set_bool(bool *setting, const char *name, const char *value, failure *f) {
  if (strcmp(value, "true") == 0) *setting = true;
  else if (strcmp(value, "false") == 0) *setting = false;
  else return failure_set(f, KEYRING_BAD_ARGUMENT, "%s: `true` or `false`", name);
  return KEYRING_OK;
}

static keyring_status set_one(keyring_config *config, const char *name, const char *value, failure *f) {
  const int64_t month = 31LL * 24 * 3600 * 1000;
  if (strcmp(name, "servers") == 0) return set_servers(config, value, f);
  if (strcmp(name, "certificate") == 0) return set_path(&config->certificate, name, value, f);
  if (strcmp(name, "key") == 0) return set_path(&config->key, name, value, f);
  if (strcmp(name, "ca") == 0) return set_path(&config->ca, name, value, f);
  if (strcmp(name, "scope") == 0) return set_scope(config, value, f);
  if (strcmp(name, "timeout_ms") == 0) return set_int(&config->timeout_ms, name, value, 1, 600000, f);
  if (strcmp(name, "connect_timeout_ms") == 0) return set_int(&config->connect_timeout_ms, name, value, 1, 600000, f);
  if (strcmp(name, "connections") == 0) return set_int(&config->connections, name, value, 1, 64, f);
  if (strcmp(name, "cache_ms") == 0) return set_number(&config->cache_ms, name, value, 0, month, f);
  if (strcmp(name, "cache_outage_ms") == 0) return set_number(&config->cache_outage_ms, name, value, 0, month, f);
  if (strcmp(name, "cache_keys") == 0) return set_int(&config->cache_keys, name, value, 1, 4096, f);
  if (strcmp(name, "allow_unlocked_memory") == 0) return set_bool(&config->allow_unlocked_memory, name, value, f);
  return failure_set(f, KEYRING_BAD_ARGUMENT,
                     "no setting `%s`: there are servers, certificate, key, ca, scope, timeout_ms, connect_timeout_ms, connections, "
                     "cache_ms, cache_outage_ms, cache_keys, allow_unlocked_memory", name);
}

keyring_status keyring_config_set(keyring_config *config, const char *name, const char *value, keyring_error *error) {
  failure f = {0};
  if (!config || !name || !value) failure_set(&f, KEYRING_BAD_ARGUMENT, "a configuration, a name and a value are needed");
  else if (set_one(config, name, value, &f) == KEYRING_OK) return KEYRING_OK;
  return failure_report(&f, NULL, NULL, error);
}

keyring_status keyring_config_set_from_environment(keyring_config *config, keyring_error *error) {
  static const char *const pairs[][2] = {
      {"KEYRING_SERVER", "servers"}, {"KEYRING_CERT", "certificate"}, {"KEYRING_KEY", "key"}, {"KEYRING_CA", "ca"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    /* A program that runs with more rights than who started it takes no orders from its environment. */
    const char *value = secure_getenv(pairs[i][0]);
    if (!value) continue;
    keyring_status status = keyring_config_set(config, pairs[i][1], value, error);
    if (status != KEYRING_OK) return status;
  }
  return KEYRING_OK;
}
