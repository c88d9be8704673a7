/* SPDX-License-Identifier: MIT */
/* The cache: a list of versions of keys, searched from its begin. It is short (`cache_keys`).
 *
 * An entry is known since before its fetch was sent. Entries past their whole life are wiped at the next use of the cache, whichever it is,
 * and answered never. The clock goes on while the machine sleeps.
 *
 * Locked memory is scarce, and the calls need it more than the cache: where there is no more for a call, the least recently used entry goes. */
#include "cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "deadline.h"

typedef struct entry {
  struct entry *next;
  keyring_key *key; /* our own */
  int64_t known_since;
  bool is_latest; /* as far as is known: it answers a fetch of version 0 */
  keyring_scope scope;
  size_t owner_length, key_id_length;
  unsigned char names[]; /* owner, key id */
} entry;

struct cache {
  pthread_mutex_t lock;
  locked_memory *memory;
  size_t most;
  int64_t fresh_ms, life_ms;
  entry *entries; /* the one used last is first */
  size_t count;
  uint64_t changes;
};

/* `key`, which may be NULL, with this in it. */
static keyring_key *key_init(keyring_key *key, locked_memory *memory, const void *bytes, size_t length, const char *type, uint32_t version,
                             uint32_t latest_version) {
  if (!key) return NULL;
  key->memory = memory;
  key->length = length;
  key->version = version;
  key->latest_version = latest_version;
  key->is_stale = false;
  size_t type_length = strnlen(type, sizeof key->type - 1);
  memcpy(key->type, type, type_length);
  key->type[type_length] = 0;
  memcpy(key->bytes, bytes, length);
  return key;
}

keyring_key *key_new(locked_memory *memory, const void *bytes, size_t length, const char *type, uint32_t version, uint32_t latest_version) {
  return key_init(locked_memory_take(memory, sizeof(keyring_key) + length), memory, bytes, length, type, version, latest_version);
}

static keyring_key *copy_of(const keyring_key *key) {
  return key_init(locked_memory_take_what_is_there(key->memory, sizeof *key + key->length), key->memory, key->bytes, key->length, key->type,
                  key->version, key->latest_version);
}

static void entry_free(entry *e) {
  keyring_key_free(e->key);
  free(e);
}

static void remove_at(cache *c, entry **link) {
  entry *e = *link;
  *link = e->next;
  c->count--;
  entry_free(e);
}

/* Never the first, where `but_first`; false: there is none. */
static bool remove_last(cache *c, bool but_first) {
  if (c->count <= (but_first ? 1 : 0)) return false;
  entry **last = &c->entries;
  while ((*last)->next) last = &(*last)->next;
  remove_at(c, last);
  return true;
}

static bool relieve(void *who) {
  cache *c = who;
  pthread_mutex_lock(&c->lock);
  bool is_relief = remove_last(c, false);
  pthread_mutex_unlock(&c->lock);
  return is_relief;
}

cache *cache_new(locked_memory *memory, size_t most, int64_t fresh_ms, int64_t outage_ms) {
  cache *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  if (pthread_mutex_init(&c->lock, NULL) != 0) {
    free(c);
    return NULL;
  }
  c->memory = memory;
  c->most = most;
  c->fresh_ms = fresh_ms;
  c->life_ms = fresh_ms + outage_ms;
  locked_memory_relieve(memory, relieve, c);
  return c;
}

void cache_free(cache *c) {
  if (!c) return;
  locked_memory_relieve(c->memory, NULL, NULL);
  while (c->entries) remove_at(c, &c->entries);
  pthread_mutex_destroy(&c->lock);
  free(c);
}

static bool is_of(const entry *e, const keyring_name *name) {
  return e->scope == name->scope && e->owner_length == name->owner_length && e->key_id_length == name->key_id_length &&
         (e->owner_length == 0 || memcmp(e->names, name->owner, e->owner_length) == 0) &&
         memcmp(e->names + e->owner_length, name->key_id, e->key_id_length) == 0;
}

static void wipe_expired(cache *c, int64_t now) {
  for (entry **link = &c->entries; *link;) {
    if (now - (*link)->known_since >= c->life_ms) remove_at(c, link);
    else link = &(*link)->next;
  }
}

static entry *find_and_move_to_front(cache *c, const keyring_name *name, uint32_t version) {
  for (entry **link = &c->entries; *link; link = &(*link)->next) {
    entry *e = *link;
    if (!is_of(e, name) || !(version == 0 ? e->is_latest : e->key->version == version)) continue;
    *link = e->next;
    e->next = c->entries;
    c->entries = e;
    return e;
  }
  return NULL;
}

cache_answer cache_find(cache *c, const keyring_name *name, uint32_t version, keyring_key **key) {
  *key = NULL;
  if (!c) return CACHE_NOTHING;
  cache_answer answer = CACHE_NOTHING;
  pthread_mutex_lock(&c->lock);
  int64_t now = deadline_now_awake_or_not();
  wipe_expired(c, now);
  const entry *e = find_and_move_to_front(c, name, version);
  if (e) {
    do *key = copy_of(e->key);
    while (!*key && remove_last(c, true));
    answer = !*key ? CACHE_NO_MEMORY : now - e->known_since < c->fresh_ms ? CACHE_FRESH : CACHE_OUTAGE;
  }
  pthread_mutex_unlock(&c->lock);
  return answer;
}

cache_mark cache_begin(cache *c) {
  if (!c) return (cache_mark){0};
  pthread_mutex_lock(&c->lock);
  cache_mark mark = {.changes = c->changes, .time = deadline_now_awake_or_not()};
  pthread_mutex_unlock(&c->lock);
  return mark;
}

static entry *entry_new(const keyring_name *name, const keyring_key *key, cache_mark mark) {
  entry *e = calloc(1, sizeof *e + name->owner_length + name->key_id_length);
  if (!e) return NULL;
  e->key = copy_of(key);
  if (!e->key) {
    free(e);
    return NULL;
  }
  e->known_since = mark.time;
  e->scope = name->scope;
  e->owner_length = name->owner_length;
  e->key_id_length = name->key_id_length;
  if (name->owner_length > 0) memcpy(e->names, name->owner, name->owner_length);
  memcpy(e->names + name->owner_length, name->key_id, name->key_id_length);
  return e;
}

void cache_put(cache *c, const keyring_name *name, uint32_t version, const keyring_key *key, cache_mark mark) {
  if (!c) return;
  pthread_mutex_lock(&c->lock);
  entry *added = mark.changes == c->changes ? entry_new(name, key, mark) : NULL;
  if (added) {
    added->is_latest = version == 0 || key->version == key->latest_version;
    for (entry **link = &c->entries; *link;) {
      entry *e = *link;
      bool is_same = is_of(e, name) && e->key->version == key->version;
      if (is_same) {
        remove_at(c, link);
        continue;
      }
      if (is_of(e, name) && (added->is_latest || e->key->version < key->latest_version)) e->is_latest = false;
      link = &e->next;
    }
    added->next = c->entries;
    c->entries = added;
    c->count++;
    while (c->count > c->most) (void)remove_last(c, false);
  }
  pthread_mutex_unlock(&c->lock);
}

void cache_drop(cache *c, const keyring_name *name) {
  if (!c) return;
  pthread_mutex_lock(&c->lock);
  c->changes++;
  for (entry **link = &c->entries; *link;) {
    if (!name || is_of(*link, name)) remove_at(c, link);
    else link = &(*link)->next;
  }
  pthread_mutex_unlock(&c->lock);
}
