/* SPDX-License-Identifier: MIT */
/* MariaDB's two questions. What is not in memory is asked for once: threads that want the same key wait for the one that asks, and
 * "there is no such key" holds for a second, so that a statement in a loop is no load. "Cannot tell" is not remembered. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "plugin.h"

enum { ABSENT_MS = 1000, ABSENT_COUNT = 16, LENGTH_CREATED = 32, KEY_ID_TEMPORARY = 2 };

/* A question on its way; on the stack of the thread that asks. */
struct flight {
  unsigned id, version;
  uint64_t serial;
  struct flight *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t landed = PTHREAD_COND_INITIALIZER;
static struct flight *flights;
static uint64_t last_serial;
static struct absent {
  unsigned id, version;
  uint64_t until_ms;
} absents[ABSENT_COUNT];
static unsigned next_absent;

static bool is_in_memory(unsigned id, unsigned version) {
  struct plugin_entry *entry = plugin_memory_find(id);
  if (!entry) return false;
  return version == 0 ? plugin_memory_latest(entry) != 0 : plugin_memory_version(entry, version) != NULL;
}

/* ---- one call ---- */

static void set_error(keyring_error *error, keyring_status status, const char *what, const char *name) {
  error->status = status;
  error->retry_after_ms = 0;
  snprintf(error->message, sizeof error->message, "keyring %.200s, tenant %s, instance %s: %s: key %.200s %s",
           plugin_settings.servers, keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring),
           keyring_status_name(status), name, what);
}

keyring_status plugin_fetch(unsigned id, unsigned version, keyring_error *error) {
  char text[PLUGIN_KEY_NAME_SIZE];
  keyring_name name = plugin_key_name(id, text);
  keyring_key *key = NULL;
  keyring_status status = keyring_fetch(plugin_keyring, &name, version, &key, error);
  if (status != KEYRING_OK) return status;
  if (!key) {
    set_error(error, KEYRING_KEY_ABSENT, "or this version of it is not in the keyring", text);
    return KEYRING_KEY_ABSENT;
  }
  size_t length = keyring_key_length(key);
  if (length != 16 && length != 24 && length != 32) {
    keyring_key_free(key);
    /* mariadbd would abort at its first use. */
    set_error(error, KEYRING_LENGTH_INVALID, "cannot be used by MariaDB: only keys of 16, 24 or 32 bytes can", text);
    return KEYRING_LENGTH_INVALID;
  }
  if (!plugin_memory_add(id, key, keyring_key_version(key) == keyring_key_latest_version(key))) {
    set_error(error, KEYRING_NO_MEMORY, "has no place in memory", text);
    return KEYRING_NO_MEMORY;
  }
  return KEYRING_OK;
}

keyring_status plugin_create(unsigned id, keyring_error *error) {
  char text[PLUGIN_KEY_NAME_SIZE];
  keyring_name name = plugin_key_name(id, text);
  keyring_status status = keyring_generate(plugin_keyring, &name, "AES", LENGTH_CREATED, error);
  if (status == KEYRING_OK) {
    plugin_log(PLUGIN_NOTE, "keyring %s, tenant %s, instance %s: made key %s (AES, %d bytes), which was not there",
               plugin_settings.servers, keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring), text, LENGTH_CREATED);
  }
  /* Another server of the tenant, in shared scope, may have been faster. */
  return status == KEYRING_KEY_EXISTS ? KEYRING_OK : status;
}

/* ---- many threads, few calls ---- */

static bool is_known_absent(unsigned id, unsigned version, uint64_t now) {
  for (int i = 0; i < ABSENT_COUNT; i++) {
    if (absents[i].id == id && absents[i].version == version && now < absents[i].until_ms) return true;
  }
  return false;
}

static bool is_flying(uint64_t serial) {
  for (struct flight *flight = flights; flight; flight = flight->next) {
    if (flight->serial == serial) return true;
  }
  return false;
}

/* True where the caller is to ask, and then to call `land`; false where another thread has, or where the answer is known. */
static bool take_off(struct flight *mine) {
  pthread_mutex_lock(&lock);
  bool is_mine = false;
  if (is_in_memory(mine->id, mine->version) || is_known_absent(mine->id, mine->version, plugin_clock_ms())) goto out;
  struct flight *other = flights;
  while (other && (other->id != mine->id || other->version != mine->version)) other = other->next;
  if (other) {
    uint64_t serial = other->serial;
    while (is_flying(serial)) pthread_cond_wait(&landed, &lock);
  } else {
    mine->serial = ++last_serial;
    mine->next = flights;
    flights = mine;
    is_mine = true;
  }
out:
  pthread_mutex_unlock(&lock);
  return is_mine;
}

static void land(struct flight *mine, bool is_absent) {
  pthread_mutex_lock(&lock);
  struct flight **link = &flights;
  while (*link != mine) link = &(*link)->next;
  *link = mine->next;
  if (is_absent) {
    absents[next_absent] = (struct absent){mine->id, mine->version, plugin_clock_ms() + ABSENT_MS};
    next_absent = (next_absent + 1) % ABSENT_COUNT;
  }
  pthread_cond_broadcast(&landed);
  pthread_mutex_unlock(&lock);
}

void plugin_questions_forget(void) {
  pthread_mutex_lock(&lock);
  memset(absents, 0, sizeof absents);
  pthread_mutex_unlock(&lock);
}

/* ---- questions ---- */

static void say(unsigned id, unsigned version, const keyring_error *error) {
  char name[PLUGIN_KEY_NAME_SIZE], line[sizeof error->message + PLUGIN_KEY_NAME_SIZE + 128];
  plugin_key_name(id, name);
  if (error->status == KEYRING_KEY_ABSENT && version == 0) {
    /* MariaDB asks for it to know whether temporary files have a key of their own. */
    if (id == KEY_ID_TEMPORARY) return;
    snprintf(line, sizeof line, "%s; to make it: keyringctl key generate %s --type AES --length 32%s", error->message, name,
             strcmp(plugin_settings.scope, "shared") == 0 ? " --shared" : "");
  } else {
    snprintf(line, sizeof line, "%s (encryption key id %u, version %u)", error->message, id, version);
  }
  plugin_log_question(((uint64_t)id << 32 | version) * 1099511628211u + (uint64_t)error->status, line);
}

static void ask(unsigned id, unsigned version) {
  struct flight mine = {.id = id, .version = version};
  if (!take_off(&mine)) return;
  keyring_error error = {0};
  keyring_status status = plugin_fetch(id, version, &error);
  if (status == KEYRING_KEY_ABSENT && version == 0 && plugin_settings.create) {
    status = plugin_create(id, &error);
    if (status == KEYRING_OK) status = plugin_fetch(id, version, &error);
  }
  land(&mine, status == KEYRING_KEY_ABSENT || status == KEYRING_LENGTH_INVALID);
  if (status == KEYRING_OK) return;
  say(id, version, &error);
  if (!plugin_is_about_one_key(status)) plugin_refresh_wake();
}

unsigned plugin_latest_key_version(unsigned id) {
  const struct plugin_entry *entry = plugin_memory_find(id);
  unsigned latest = entry ? plugin_memory_latest(entry) : 0;
  if (latest != 0) return latest;
  ask(id, 0);
  entry = plugin_memory_find(id);
  latest = entry ? plugin_memory_latest(entry) : 0;
  return latest != 0 ? latest : PLUGIN_VERSION_INVALID;
}

static const keyring_key *find(unsigned id, unsigned version) {
  const struct plugin_entry *entry = plugin_memory_find(id);
  return entry ? plugin_memory_version(entry, version) : NULL;
}

unsigned plugin_get_key(unsigned id, unsigned version, unsigned char *buffer, unsigned *length) {
  /* 0 is "not encrypted" in MariaDB and "the newest" in the keyring; no key has it. */
  if (version == 0 || version == PLUGIN_VERSION_INVALID) return PLUGIN_VERSION_INVALID;
  const keyring_key *key = find(id, version);
  if (!key) {
    ask(id, version);
    key = find(id, version);
  }
  if (!key) return PLUGIN_VERSION_INVALID;
  unsigned needed = (unsigned)keyring_key_length(key);
  bool fits = buffer && *length >= needed;
  *length = needed;
  if (!fits) return PLUGIN_BUFFER_TOO_SMALL;
  memcpy(buffer, keyring_key_bytes(key), needed);
  return 0;
}
