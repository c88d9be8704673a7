/* SPDX-License-Identifier: MIT */
/* What is known, in lists that only grow at their heads: whoever reads needs no lock, since what it has found stays. Keys are in
 * libkeyring's locked memory; these lists hold pointers to them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "plugin.h"

enum { BUCKETS = 256 };

struct version {
  unsigned number;
  keyring_key *key;
  _Atomic uint64_t created_ms; /* 0: not known yet */
  struct version *next;
};

struct plugin_entry {
  unsigned id;
  atomic_uint latest; /* 0: none is announced yet */
  _Atomic(struct version *) versions;
  struct plugin_entry *next_in_bucket;
  struct plugin_entry *next;
};

static _Atomic(struct plugin_entry *) buckets[BUCKETS];
static _Atomic(struct plugin_entry *) all;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint id_count, version_count;

struct plugin_entry *plugin_memory_find(unsigned id) {
  struct plugin_entry *entry = atomic_load_explicit(&buckets[id % BUCKETS], memory_order_acquire);
  while (entry && entry->id != id) entry = entry->next_in_bucket;
  return entry;
}

unsigned plugin_memory_latest(const struct plugin_entry *entry) {
  return atomic_load_explicit(&entry->latest, memory_order_acquire);
}

unsigned plugin_memory_id(const struct plugin_entry *entry) { return entry->id; }

static struct version *find_version(const struct plugin_entry *entry, unsigned number) {
  struct version *version = atomic_load_explicit(&entry->versions, memory_order_acquire);
  while (version && version->number != number) version = version->next;
  return version;
}

const keyring_key *plugin_memory_version(const struct plugin_entry *entry, unsigned number) {
  const struct version *version = find_version(entry, number);
  return version ? version->key : NULL;
}

uint64_t plugin_memory_made(struct plugin_entry *entry, unsigned number, uint64_t created_ms) {
  struct version *version = find_version(entry, number);
  uint64_t none = 0;
  if (!version || atomic_compare_exchange_strong(&version->created_ms, &none, created_ms)) return created_ms;
  return none;
}

struct plugin_entry *plugin_memory_first(void) { return atomic_load_explicit(&all, memory_order_acquire); }

struct plugin_entry *plugin_memory_next(const struct plugin_entry *entry) { return entry->next; }

static struct plugin_entry *make_entry(unsigned id) {
  struct plugin_entry *entry = calloc(1, sizeof *entry);
  if (!entry) return NULL;
  entry->id = id;
  return entry;
}

/* Seen by others from here on. */
static void publish(struct plugin_entry *entry) {
  entry->next_in_bucket = atomic_load_explicit(&buckets[entry->id % BUCKETS], memory_order_relaxed);
  entry->next = atomic_load_explicit(&all, memory_order_relaxed);
  atomic_store_explicit(&buckets[entry->id % BUCKETS], entry, memory_order_release);
  atomic_store_explicit(&all, entry, memory_order_release);
  atomic_fetch_add(&id_count, 1);
}

static bool add_version(struct plugin_entry *entry, keyring_key *key) {
  unsigned number = keyring_key_version(key);
  if (plugin_memory_version(entry, number)) {
    keyring_key_free(key);
    return true;
  }
  struct version *version = malloc(sizeof *version);
  if (!version) {
    keyring_key_free(key);
    return false;
  }
  version->number = number;
  version->key = key;
  version->next = atomic_load_explicit(&entry->versions, memory_order_relaxed);
  atomic_init(&version->created_ms, 0);
  atomic_store_explicit(&entry->versions, version, memory_order_release);
  atomic_fetch_add(&version_count, 1);
  return true;
}

bool plugin_memory_add(unsigned id, keyring_key *key, bool announce) {
  unsigned number = keyring_key_version(key);
  pthread_mutex_lock(&adding);
  struct plugin_entry *known = plugin_memory_find(id);
  struct plugin_entry *entry = known ? known : make_entry(id);
  bool added = false;
  if (!entry) {
    keyring_key_free(key);
  } else {
    added = add_version(entry, key);
  }
  if (added && announce && number > plugin_memory_latest(entry)) {
    atomic_store_explicit(&entry->latest, number, memory_order_release);
  }
  if (added && !known) publish(entry);
  if (!added && !known) free(entry);
  pthread_mutex_unlock(&adding);
  return added;
}

void plugin_memory_count(unsigned *ids, unsigned *versions) {
  *ids = atomic_load(&id_count);
  *versions = atomic_load(&version_count);
}

static void free_entry(struct plugin_entry *entry) {
  struct version *version = atomic_load(&entry->versions);
  while (version) {
    struct version *next = version->next;
    keyring_key_free(version->key);
    free(version);
    version = next;
  }
  free(entry);
}

void plugin_memory_clear(void) {
  struct plugin_entry *entry = atomic_exchange(&all, NULL);
  for (int i = 0; i < BUCKETS; i++) atomic_store(&buckets[i], NULL);
  while (entry) {
    struct plugin_entry *next = entry->next;
    free_entry(entry);
    entry = next;
  }
  atomic_store(&id_count, 0);
  atomic_store(&version_count, 0);
}
