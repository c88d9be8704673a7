/* SPDX-License-Identifier: MIT */
/* An arena of locked pages.
 *
 * A region is one mapping, cut into blocks that follow each other; each begins with a header that says how long it is and whether it is
 * taken, so that neighbours that are free grow together again. Regions come as they are needed and go when nothing in them is taken
 * (one stays). Taking and giving walk the headers of a region: there are few keys.
 *
 * fork(): the pages are neither MADV_DONTFORK nor MADV_WIPEONFORK. A database reads its first keys before it becomes a daemon, and the
 * child, which is the database from then on, must have them; and an arena whose headers vanish is no arena. Locks are not inherited,
 * so the child locks again (locked_memory_lock_again). */
#include "locked_memory.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(pointer, size) ASAN_POISON_MEMORY_REGION(pointer, size)
#define UNPOISON(pointer, size) ASAN_UNPOISON_MEMORY_REGION(pointer, size)
#else
#define POISON(pointer, size) ((void)(pointer), (void)(size))
#define UNPOISON(pointer, size) ((void)(pointer), (void)(size))
#endif

enum { UNIT = 16, REGION_BYTES = 64 * 1024 };

/* A multiple of UNIT, so that what follows is aligned. */
typedef struct block {
  size_t size; /* of what follows */
  size_t taken;
} block;

typedef struct region {
  struct region *next;
  unsigned char *base;
  size_t size;
  size_t blocks_taken;
} region;

struct locked_memory {
  pthread_mutex_t lock;
  region *regions;
  size_t mapped;
  size_t most;
  bool allow_unlocked;
  locked_memory_relief relief;
  void *who;
};

locked_memory *locked_memory_new(size_t most, bool allow_unlocked) {
  locked_memory *memory = calloc(1, sizeof *memory);
  if (!memory) return NULL;
  if (pthread_mutex_init(&memory->lock, NULL) != 0) {
    free(memory);
    return NULL;
  }
  memory->most = most;
  memory->allow_unlocked = allow_unlocked;
  return memory;
}

static void region_unmap(region *r) {
  UNPOISON(r->base, r->size);
  OPENSSL_cleanse(r->base, r->size);
  (void)munlock(r->base, r->size);
  (void)munmap(r->base, r->size);
  free(r);
}

void locked_memory_free(locked_memory *memory) {
  if (!memory) return;
  for (region *r = memory->regions, *next; r; r = next) {
    next = r->next;
    region_unmap(r);
  }
  pthread_mutex_destroy(&memory->lock);
  free(memory);
}

static bool region_lock(unsigned char *base, size_t size, bool allow_unlocked) {
  (void)madvise(base, size, MADV_DONTDUMP);
  return mlock(base, size) == 0 || allow_unlocked;
}

static region *region_map(size_t size, bool allow_unlocked) {
  region *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    free(r);
    return NULL;
  }
  if (!region_lock(base, size, allow_unlocked)) {
    (void)munmap(base, size);
    free(r);
    return NULL;
  }
  r->base = base;
  r->size = size;
  ((block *)base)->size = size - sizeof(block);
  POISON(r->base + sizeof(block), size - sizeof(block));
  return r;
}

/* A region with room for `size`, as large as usual, or where that cannot be locked, as large as it must be. */
static region *region_add(locked_memory *memory, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t least = (size + sizeof(block) + page - 1) / page * page;
  size_t usual = least < REGION_BYTES ? REGION_BYTES : least;
  for (int i = 0; i < 2; i++) {
    size_t wanted = i == 0 ? usual : least;
    if (wanted > memory->most - memory->mapped) continue;
    region *r = region_map(wanted, memory->allow_unlocked);
    if (!r) continue;
    r->next = memory->regions;
    memory->regions = r;
    memory->mapped += wanted;
    return r;
  }
  return NULL;
}

static block *block_after(block *b) { return (block *)((unsigned char *)(b + 1) + b->size); }

/* The first free block of a region that is long enough, cut to length. */
static void *region_take(region *r, size_t size) {
  block *end = (block *)(r->base + r->size);
  for (block *b = (block *)r->base; b < end; b = block_after(b)) {
    if (b->taken || b->size < size) continue;
    UNPOISON(b + 1, b->size);
    if (b->size - size >= sizeof(block) + UNIT) {
      block *rest = (block *)((unsigned char *)(b + 1) + size);
      rest->size = b->size - size - sizeof(block);
      rest->taken = 0;
      POISON(rest + 1, rest->size);
      b->size = size;
    }
    b->taken = 1;
    r->blocks_taken++;
    return b + 1;
  }
  return NULL;
}

void *locked_memory_take_what_is_there(locked_memory *memory, size_t size) {
  if (size > memory->most) return NULL;
  size_t rounded = size == 0 ? UNIT : (size + UNIT - 1) / UNIT * UNIT;
  void *found = NULL;
  pthread_mutex_lock(&memory->lock);
  for (region *r = memory->regions; r && !found; r = r->next) found = region_take(r, rounded);
  if (!found) {
    region *added = region_add(memory, rounded);
    if (added) found = region_take(added, rounded);
  }
  pthread_mutex_unlock(&memory->lock);
  return found;
}

void locked_memory_relieve(locked_memory *memory, locked_memory_relief relief, void *who) {
  memory->relief = relief;
  memory->who = who;
}

void *locked_memory_take(locked_memory *memory, size_t size) {
  if (size > memory->most) return NULL;
  for (;;) {
    void *taken = locked_memory_take_what_is_there(memory, size);
    /* The lock is not held here: relief comes from who gives memory back. */
    if (taken || !memory->relief || !memory->relief(memory->who)) return taken;
  }
}

/* Free neighbours become one; what was a header between them is wiped, so that free memory is all zero. */
static void region_join(region *r) {
  block *end = (block *)(r->base + r->size);
  for (block *b = (block *)r->base; b < end;) {
    block *next = block_after(b);
    if (b->taken || next >= end || next->taken) {
      b = next;
      continue;
    }
    b->size += sizeof(block) + next->size;
    memset(next, 0, sizeof *next);
    POISON(next, sizeof *next);
  }
}

void locked_memory_give(locked_memory *memory, void *pointer) {
  if (!pointer) return;
  unsigned char *bytes = pointer;
  pthread_mutex_lock(&memory->lock);
  for (region **link = &memory->regions; *link; link = &(*link)->next) {
    region *r = *link;
    if (bytes < r->base || bytes >= r->base + r->size) continue;
    block *b = (block *)pointer - 1;
    OPENSSL_cleanse(pointer, b->size);
    POISON(pointer, b->size);
    b->taken = 0;
    r->blocks_taken--;
    region_join(r);
    if (r->blocks_taken == 0 && (r != memory->regions || r->next)) {
      *link = r->next;
      memory->mapped -= r->size;
      region_unmap(r);
    }
    break;
  }
  pthread_mutex_unlock(&memory->lock);
}

bool locked_memory_lock_again(locked_memory *memory) {
  bool locked = true;
  pthread_mutex_lock(&memory->lock);
  for (region *r = memory->regions; r; r = r->next) locked = region_lock(r->base, r->size, memory->allow_unlocked) && locked;
  pthread_mutex_unlock(&memory->lock);
  return locked;
}
