/* SPDX-License-Identifier: MIT */
/* The keyring in force, who uses it, and how its calls have ended. load() may put another one in force at any time; the old
 * one is closed, its cache and connections with it, when the last reader lets go of it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "component.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct component_link *current;
static char last_error[sizeof((keyring_error *)0)->message];
static uint64_t last_error_ms;   /* Unix time, for people */
static uint64_t last_error_since; /* by the clock of the cache */
static bool is_of_keys; /* one of these at least said something of keys, rather than that nobody answers */
static uint64_t failures;
static uint64_t failures_in_a_row; /* of the server or the way to it */

static const char no_configuration[] = "no usable configuration; ALTER INSTANCE RELOAD KEYRING reads it again";

static uint64_t now_ms(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct component_link *component_link_peek(void) {
  pthread_mutex_lock(&lock);
  struct component_link *link = current;
  if (link) link->references++;
  pthread_mutex_unlock(&lock);
  return link;
}

struct component_link *component_link_acquire(const char *operation) {
  struct component_link *link = component_link_peek();
  if (link) return link;
  keyring_error error = {.status = KEYRING_BAD_CONFIGURATION};
  snprintf(error.message, sizeof error.message, "keyring: %s: %s", keyring_status_name(error.status), no_configuration);
  component_failed(NULL, operation, NULL, NULL, &error);
  return NULL;
}

void component_link_release(struct component_link *link) {
  if (!link) return;
  pthread_mutex_lock(&lock);
  bool last = --link->references == 0;
  pthread_mutex_unlock(&lock);
  if (!last) return;
  keyring_close(link->keyring);
  component_configuration_free(&link->configuration);
  free(link);
}

void component_link_install(struct component_link *link) {
  pthread_mutex_lock(&lock);
  struct component_link *old = current;
  current = link;
  last_error[0] = 0;
  last_error_ms = 0;
  failures = 0;
  failures_in_a_row = 0;
  is_of_keys = false;
  pthread_mutex_unlock(&lock);
  component_link_release(old);
}

struct component_link *component_link_open(struct component_configuration *configuration, keyring_error *error) {
  struct component_link *link = calloc(1, sizeof *link);
  if (!link) {
    component_configuration_free(configuration);
    *error = (keyring_error){.status = KEYRING_NO_MEMORY, .message = "no memory"};
    return NULL;
  }
  link->configuration = *configuration;
  configuration->config = NULL;
  link->references = 1;
  if (keyring_open(link->configuration.config, &link->keyring, error) == KEYRING_OK) return link;
  component_configuration_free(&link->configuration);
  free(link);
  return NULL;
}

bool component_link_is_proven(const struct component_link *link) {
  pthread_mutex_lock(&lock);
  bool proven = link->proven;
  pthread_mutex_unlock(&lock);
  return proven;
}

void component_succeeded(struct component_link *link) {
  pthread_mutex_lock(&lock);
  link->proven = true;
  uint64_t ended = link == current ? failures_in_a_row : 0;
  if (ended) {
    failures_in_a_row = 0;
    is_of_keys = false;
  }
  pthread_mutex_unlock(&lock);
  if (ended == 0) return;
  component_log(MYSQL_ABI_SYSTEM, "keyring %s, tenant %s, instance %s: answers again after %llu failed calls",
                link->configuration.servers, keyring_tenant(link->keyring), keyring_instance(link->keyring),
                (unsigned long long)ended);
}

void component_answered(struct component_link *link) {
  pthread_mutex_lock(&lock);
  bool tells_nothing = link == current && failures_in_a_row && is_of_keys;
  pthread_mutex_unlock(&lock);
  if (!tells_nothing) component_succeeded(link);
}

void component_fetched(struct component_link *link, const keyring_key *key) {
  if (!key) {
    component_answered(link);
    return;
  }
  /* One that has never worked has nothing in its cache: the server has answered. Else, what the cache held when the last failure happened
   * has to be too old by now. */
  pthread_mutex_lock(&lock);
  bool is_past_cache = now_ms(CLOCK_BOOTTIME) >= last_error_since + link->configuration.cache_ms && !keyring_key_is_stale(key);
  bool asked = !link->proven || (failures_in_a_row && is_past_cache);
  pthread_mutex_unlock(&lock);
  if (asked) component_succeeded(link);
}

static uint64_t hash(uint64_t start, const char *text) {
  for (; text && *text; text++) start = (start ^ (unsigned char)*text) * 1099511628211u;
  return start * 1099511628211u;
}

/* What the caller may have caused, as opposed to the server or the way to it. */
static bool is_of_the_call(keyring_status status) {
  switch (status) {
    case KEYRING_KEY_EXISTS:
    case KEYRING_KEY_ABSENT:
    case KEYRING_NAME_INVALID:
    case KEYRING_TYPE_INVALID:
    case KEYRING_LENGTH_INVALID:
    case KEYRING_BAD_ARGUMENT: return true;
    default: return false;
  }
}

/* That no server was reached, or that it was none of ours. */
static bool is_of_the_way(keyring_status status) {
  switch (status) {
    case KEYRING_UNREACHABLE:
    case KEYRING_TIMEOUT:
    case KEYRING_SHUTTING_DOWN:
    case KEYRING_REFUSED:
    case KEYRING_PROTOCOL: return true;
    default: return false;
  }
}

/* Names come from SQL users: a line feed in one must not make a line of the log. */
static void printable(const char *text, char *buffer, size_t size) {
  size_t used = 0;
  for (; text && text[used] && used + 1 < size; used++) {
    unsigned char byte = (unsigned char)text[used];
    buffer[used] = byte < 32 || byte == 127 ? '?' : (char)byte;
  }
  buffer[used] = 0;
}

void component_failed(const struct component_link *link, const char *operation, const char *data_id, const char *auth_id,
                      const keyring_error *error) {
  char key[256], owner[128], line[1280];
  printable(data_id, key, sizeof key);
  printable(auth_id, owner, sizeof owner);
  snprintf(line, sizeof line, "%s (%s%s%s%s%s)", error->message, operation, *key ? ", key " : "", key, *owner ? ", owner " : "",
           owner);
  bool of_the_call = is_of_the_call(error->status);
  pthread_mutex_lock(&lock);
  if (link == current) {
    failures++;
    if (!of_the_call) {
      failures_in_a_row++;
      snprintf(last_error, sizeof last_error, "%s", error->message);
      if (!is_of_the_way(error->status)) is_of_keys = true;
      last_error_ms = now_ms(CLOCK_REALTIME);
      last_error_since = now_ms(CLOCK_BOOTTIME);
    }
  }
  pthread_mutex_unlock(&lock);
  uint64_t kind = hash(14695981039346656037u ^ (uint64_t)error->status, operation);
  kind = hash(hash(kind, data_id), auth_id);
  kind = hash(kind, link ? link->configuration.servers : NULL);
  component_log_failure(of_the_call ? MYSQL_ABI_WARNING : MYSQL_ABI_ERROR, kind, line);
}

keyring_name component_key_name(const char *data_id, const char *auth_id) {
  return keyring_name_of(KEYRING_SCOPE_DEFAULT, auth_id, data_id);
}

/* Of strings that are never longer than the field, but for a list of servers that nobody will write. */
static void put(char *field, size_t size, const char *text) { snprintf(field, size, "%s", text); }

static void state_of(const struct component_link *link, struct keyring_service_state *state) {
  const struct component_configuration *configuration = &link->configuration;
  put(state->servers, sizeof state->servers, configuration->servers);
  put(state->tenant, sizeof state->tenant, keyring_tenant(link->keyring));
  put(state->instance, sizeof state->instance, keyring_instance(link->keyring));
  put(state->scope, sizeof state->scope, configuration->scope);
  put(state->configuration, sizeof state->configuration, configuration->path);
  state->cache_ms = configuration->cache_ms;
  state->cache_outage_ms = configuration->cache_outage_ms;
  state->timeout_ms = configuration->timeout_ms;
}

static void fill(const struct component_link *link, struct keyring_service_state *state) {
  if (link) state_of(link, state);
  pthread_mutex_lock(&lock);
  put(state->status, sizeof state->status, link && link->proven ? "Active" : "Disabled");
  put(state->last_error, sizeof state->last_error, last_error);
  state->last_error_ms = last_error_ms;
  state->failures = failures;
  pthread_mutex_unlock(&lock);
}

void component_state(struct keyring_service_state *state) {
  struct component_link *link = component_link_peek();
  fill(link, state);
  component_link_release(link);
}

mysql_abi_status component_state_asked(struct keyring_service_state *state, int ask) {
  if (!ask) {
    component_state(state);
    return 0;
  }
  struct component_link *link = component_link_acquire("who am I");
  keyring_identity identity = {0};
  keyring_error error = {0};
  bool good = link && keyring_who_am_i(link->keyring, &identity, &error) == KEYRING_OK;
  if (good) {
    component_answered(link);
    put(state->server, sizeof state->server, identity.server);
    put(state->server_version, sizeof state->server_version, identity.server_version);
    state->not_after = identity.not_after;
  } else if (link) {
    component_failed(link, "who am I", NULL, NULL, &error);
  }
  fill(link, state);
  component_link_release(link);
  return good ? 0 : 1;
}
