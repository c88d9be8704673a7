/* SPDX-License-Identifier: MIT */
/* Opening and closing a keyring, and its keys in the hands of the caller. */
#include "keyring_internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "deadline.h"
#include "pool.h"

/* Of one keyring: its files while they are read, its requests and replies, its cache, and the keys that callers hold. */
enum { LOCKED_BYTES_MOST = 16 * 1024 * 1024 };

keyring_status keyring_fail(const keyring *k, const failure *f, keyring_error *error) {
  return failure_report(f, k ? k->credentials.identity.tenant : NULL, k ? k->credentials.identity.instance : NULL, error);
}

static keyring_status check(const keyring_config *config, failure *f) {
  const char *missing = config->server_count == 0 ? "servers" : !config->certificate ? "certificate" : !config->key ? "key" : !config->ca ? "ca" : NULL;
  if (missing) return failure_set(f, KEYRING_BAD_ARGUMENT, "the setting `%s` is required", missing);
  if (config->cache_outage_ms > 0 && config->cache_ms == 0)
    return failure_set(f, KEYRING_BAD_ARGUMENT, "cache_outage_ms without cache_ms: there would be no cache to answer from");
  return KEYRING_OK;
}

static keyring_status open_parts(keyring *k, failure *f) {
  k->process = getpid();
  k->end = &k->first;
  k->memory = locked_memory_new(LOCKED_BYTES_MOST, k->config.allow_unlocked_memory);
  if (!k->memory) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  if (k->config.cache_ms > 0) {
    k->cache = cache_new(k->memory, (size_t)k->config.cache_keys, k->config.cache_ms, k->config.cache_outage_ms);
    if (!k->cache) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  }
  return credentials_init(&k->credentials, &k->config, k->memory, f);
}

static void free_parts(keyring *k) {
  cache_free(k->cache);
  locked_memory_free(k->memory);
  config_clear(&k->config);
  free(k);
}

/* All or none of the locks, and the servers with theirs. */
static bool locks_init(keyring *k) {
  if (pthread_mutex_init(&k->lock, NULL) != 0) return false;
  for (size_t i = 0; i < k->config.server_count; i++) {
    if (dial_server_init(&k->servers[i], &k->config.servers[i])) continue;
    while (i > 0) dial_server_destroy(&k->servers[--i]);
    pthread_mutex_destroy(&k->lock);
    return false;
  }
  return true;
}

static keyring_status make(const keyring_config *config, keyring **result, failure *f) {
  keyring_status status = check(config, f);
  if (status != KEYRING_OK) return status;
  keyring *k = calloc(1, sizeof *k);
  if (!k || !config_copy(&k->config, config)) {
    free(k);
    return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  }
  status = open_parts(k, f);
  if (status == KEYRING_OK && !locks_init(k)) {
    credentials_destroy(&k->credentials);
    status = failure_set(f, KEYRING_NO_MEMORY, "no memory");
  }
  if (status != KEYRING_OK) {
    free_parts(k);
    return status;
  }
  *result = k;
  return KEYRING_OK;
}

keyring_status keyring_open(const keyring_config *config, keyring **result, keyring_error *error) {
  failure f = {0};
  if (!config || !result) failure_set(&f, KEYRING_BAD_ARGUMENT, "a configuration and a place for the keyring are needed");
  if (result) *result = NULL;
  if (f.status == KEYRING_OK && make(config, result, &f) == KEYRING_OK) return KEYRING_OK;
  return failure_report(&f, NULL, NULL, error);
}

void keyring_close(keyring *k) {
  if (!k) return;
  pool_close_idle(k);
  for (size_t i = 0; i < k->config.server_count; i++) dial_server_destroy(&k->servers[i]);
  pthread_mutex_destroy(&k->lock);
  credentials_destroy(&k->credentials);
  free_parts(k);
}

void keyring_disconnect(keyring *k) {
  if (k) pool_close_idle(k);
}

void keyring_forget(keyring *k) {
  if (k) cache_drop(k->cache, NULL);
}

const char *keyring_tenant(const keyring *k) { return k->credentials.identity.tenant; }
const char *keyring_instance(const keyring *k) { return k->credentials.identity.instance; }

const unsigned char *keyring_key_bytes(const keyring_key *key) { return key->bytes; }
size_t keyring_key_length(const keyring_key *key) { return key->length; }
const char *keyring_key_type(const keyring_key *key) { return key->type; }
uint32_t keyring_key_version(const keyring_key *key) { return key->version; }
uint32_t keyring_key_latest_version(const keyring_key *key) { return key->latest_version; }
bool keyring_key_is_stale(const keyring_key *key) { return key->is_stale; }

void keyring_key_free(keyring_key *key) {
  if (key) locked_memory_give(key->memory, key);
}
