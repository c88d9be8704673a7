#include "COpenSSL.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

// malloc_usable_size gives the whole capacity, which may be more than was asked for:
// nothing that was ever written in the block survives its release.
static void wipe_block(void *block) {
  if (block != NULL) {
    explicit_bzero(block, malloc_usable_size(block));
  }
}

static void *wiping_malloc(size_t size, const char *file, int line) {
  (void)file;
  (void)line;
  return malloc(size);
}

static void wiping_free(void *block, const char *file, int line) {
  (void)file;
  (void)line;
  wipe_block(block);
  free(block);
}

static void *wiping_realloc(void *block, size_t size, const char *file, int line) {
  if (block == NULL) {
    return malloc(size);
  }
  if (size == 0) {
    wiping_free(block, file, line);
    return NULL;
  }
  size_t capacity = malloc_usable_size(block);
  if (size <= capacity) {
    return block;
  }
  void *moved = malloc(size);
  if (moved != NULL) {
    memcpy(moved, block, capacity);
    wiping_free(block, file, line);
  }
  return moved;
}

int keyring_openssl_install_wiping_allocator(void) {
  return CRYPTO_set_mem_functions(wiping_malloc, wiping_realloc, wiping_free);
}
