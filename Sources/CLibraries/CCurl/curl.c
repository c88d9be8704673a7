#include "CCurl.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// As in COpenSSL's allocator.c: malloc_usable_size gives the whole capacity, so that nothing that was ever written in a block survives
// its release.
static void wiping_free(void *block) {
  if (block != NULL) {
    explicit_bzero(block, malloc_usable_size(block));
    free(block);
  }
}

static void *wiping_realloc(void *block, size_t size) {
  if (block == NULL) {
    return malloc(size);
  }
  size_t capacity = malloc_usable_size(block);
  if (size <= capacity) {
    return block;  // of 0 bytes, too, which realloc(3) may free: libcurl then goes on to free the block
  }
  void *moved = malloc(size);
  if (moved != NULL) {
    memcpy(moved, block, capacity);
    wiping_free(block);
  }
  return moved;
}

static atomic_bool is_asked = false;

static void *noticed_calloc(size_t count, size_t size) {
  atomic_store_explicit(&is_asked, true, memory_order_relaxed);
  return calloc(count, size);
}

enum keyring_curl_start keyring_curl_start(void) {
  // Emptied where it stands: unsetenv(3) moves its neighbours, past which another thread's getenv(3) may be on its way. libcurl takes an
  // empty one for none.
  char *key_log = getenv("SSLKEYLOGFILE");
  if (key_log != NULL) {
    *key_log = 0;
  }
  if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup, noticed_calloc) != CURLE_OK) {
    return keyring_curl_failed;
  }
  // Where libcurl was initialized before, it answers CURLE_OK and keeps its allocator.
  atomic_store(&is_asked, false);
  curl_url_cleanup(curl_url());
  if (!atomic_load(&is_asked)) {
    return keyring_curl_was_used;
  }
  const char *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
  return tls != NULL && strncmp(tls, "OpenSSL/", 8) == 0 ? keyring_curl_started : keyring_curl_other_tls;
}
