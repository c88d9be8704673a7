#include "COpenSSL.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

// malloc_usable_size gives the whole capacity, which may be more than was asked for:
// nothing that was ever written in the block survives its release.
static void wipe_block(void *block) {
  if (block != NULL) {
    memset(block, 0, malloc_usable_size(block));
    __asm__ __volatile__("" : : "r"(block) : "memory");  // as explicit_bzero(3): the store is not dead
  }
}

// Set while what this thread allocates is to be locked memory.
static _Thread_local int wants_locked_memory = 0;

static void *wiping_malloc(size_t size, const char *file, int line) {
  if (!wants_locked_memory) {
    return malloc(size);
  }
  wants_locked_memory = 0;  // without an arena CRYPTO_secure_malloc comes back here
  void *block = CRYPTO_secure_malloc(size, file, line);
  wants_locked_memory = 1;
  return block;
}

static void wiping_free(void *block, const char *file, int line) {
  if (CRYPTO_secure_allocated(block)) {
    CRYPTO_secure_free(block, file, line);  // wipes the whole block
    return;
  }
  wipe_block(block);
  free(block);
}

static void *wiping_realloc(void *block, size_t size, const char *file, int line) {
  if (block == NULL) {
    return wiping_malloc(size, file, line);
  }
  if (size == 0) {
    wiping_free(block, file, line);
    return NULL;
  }
  int is_locked = CRYPTO_secure_allocated(block);
  size_t capacity = is_locked ? CRYPTO_secure_actual_size(block) : malloc_usable_size(block);
  if (size <= capacity) {
    return block;
  }
  void *moved = is_locked ? CRYPTO_secure_malloc(size, file, line) : wiping_malloc(size, file, line);
  if (moved != NULL) {
    memcpy(moved, block, capacity);
    wiping_free(block, file, line);
  }
  return moved;
}

int keyring_openssl_install_wiping_allocator(void) {
  return CRYPTO_set_mem_functions(wiping_malloc, wiping_realloc, wiping_free);
}

int keyring_EVP_CipherInit_locked(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key, int is_encrypting) {
  wants_locked_memory = 1;
  int ok = EVP_CipherInit_ex2(context, cipher, key, NULL, is_encrypting, NULL);
  wants_locked_memory = 0;
  return ok;
}
