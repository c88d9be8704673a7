/* SPDX-License-Identifier: MIT */
/* Fetched keys, for a bounded time, in locked memory. */
#ifndef KEYRING_CACHE_H
#define KEYRING_CACHE_H

#include "keyring.h"
#include "locked_memory.h"

/* What a caller of keyring_fetch holds. It lies in locked memory as a whole. */
struct keyring_key {
  locked_memory *memory;
  size_t length;
  uint32_t version;
  uint32_t latest_version;
  bool is_stale;
  char type[128];
  unsigned char bytes[];
};

/* A key of `length` bytes, NULL: no more locked memory. */
keyring_key *key_new(locked_memory *memory, const void *bytes, size_t length, const char *type, uint32_t version, uint32_t latest_version);

typedef struct cache cache;

/* NULL: no memory. */
cache *cache_new(locked_memory *memory, size_t most, int64_t fresh_ms, int64_t outage_ms);
void cache_free(cache *c);

typedef enum cache_answer {
  CACHE_NOTHING,
  CACHE_FRESH,    /* may be answered as it is */
  CACHE_OUTAGE,   /* only where no server can be reached */
  CACHE_NO_MEMORY /* there is one, and no memory to hand it out */
} cache_answer;

/* A copy of what there is for this name (whose scope is not the default one) and version, 0 the newest. */
cache_answer cache_find(cache *c, const keyring_name *name, uint32_t version, keyring_key **key);

/* What cache_put needs to tell whether anything changed meanwhile, and since when the answer that is being asked for is known. */
typedef struct cache_mark {
  uint64_t changes;
  int64_t time;
} cache_mark;
cache_mark cache_begin(cache *c);
/* Not where the cache was told of a change since `mark`: the answer may be from before it. */
void cache_put(cache *c, const keyring_name *name, uint32_t version, const keyring_key *key, cache_mark mark);

/* Wipes all versions of a name; `name` NULL: everything. */
void cache_drop(cache *c, const keyring_name *name);

#endif
