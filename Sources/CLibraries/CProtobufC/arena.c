#include "CProtobufC.h"

#include <stdlib.h>
#include <string.h>

struct block {
  struct block *next;
  size_t capacity;
  size_t used;
  max_align_t data[];
};

struct keyring_arena {
  ProtobufCAllocator allocator;
  struct block *blocks;  // newest first; the last one is the first block, kept across resets
  size_t budget;
  size_t used;
  bool exhausted;
  bool starved;
};

static struct block *make_block(size_t capacity) {
  struct block *block = malloc(sizeof(struct block) + capacity);
  if (block != NULL) {
    block->next = NULL;
    block->capacity = capacity;
    block->used = 0;
  }
  return block;
}

static void *arena_alloc(void *context, size_t size) {
  keyring_arena *arena = context;
  const size_t alignment = _Alignof(max_align_t);
  if (size > arena->budget - arena->used) {
    arena->exhausted = true;
    return NULL;
  }
  size_t padded = (size + alignment - 1) / alignment * alignment;
  if (padded > arena->budget - arena->used) {
    arena->exhausted = true;
    return NULL;
  }
  struct block *block = arena->blocks;
  if (padded > block->capacity - block->used) {
    size_t capacity = block->capacity * 2 > padded ? block->capacity * 2 : padded;
    struct block *fresh = make_block(capacity);
    if (fresh == NULL) {
      arena->starved = true;
      return NULL;
    }
    fresh->next = block;
    arena->blocks = block = fresh;
  }
  void *result = (char *)block->data + block->used;
  block->used += padded;
  arena->used += padded;
  return result;
}

static void arena_free(void *context, void *pointer) {
  (void)context;
  (void)pointer;
}

keyring_arena *keyring_arena_create(size_t first_block, size_t budget) {
  keyring_arena *arena = malloc(sizeof *arena);
  struct block *block = make_block(first_block);
  if (arena == NULL || block == NULL) {
    free(arena);
    free(block);
    return NULL;
  }
  *arena = (keyring_arena){
      .allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = arena},
      .blocks = block,
      .budget = budget,
  };
  return arena;
}

void keyring_arena_reset(keyring_arena *arena) {
  while (arena->blocks->next != NULL) {
    struct block *block = arena->blocks;
    arena->blocks = block->next;
    explicit_bzero(block->data, block->used);
    free(block);
  }
  explicit_bzero(arena->blocks->data, arena->blocks->used);
  arena->blocks->used = 0;
  arena->used = 0;
  arena->exhausted = false;
  arena->starved = false;
}

void keyring_arena_set_budget(keyring_arena *arena, size_t budget) {
  arena->budget = budget > arena->used ? budget : arena->used;
}

bool keyring_arena_exhausted(const keyring_arena *arena) { return arena->exhausted; }

bool keyring_arena_starved(const keyring_arena *arena) { return arena->starved; }

size_t keyring_arena_used(const keyring_arena *arena) { return arena->used; }

void keyring_arena_destroy(keyring_arena *arena) {
  if (arena == NULL) {
    return;
  }
  keyring_arena_reset(arena);
  free(arena->blocks);
  free(arena);
}

ProtobufCAllocator *keyring_arena_allocator(keyring_arena *arena) { return &arena->allocator; }
