/* SPDX-License-Identifier: MIT */
/* The fetch of a key for the reader and for AES. InnoDB asks once for each encrypted tablespace, one after the other, and does not
 * hear SIGTERM meanwhile: where no server answers, each of them would wait for its deadline. So a key that could not be asked for
 * is not asked for again for a moment; the answer is the same error, never "absent". What the cache holds is not concerned. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "component.h"

enum { MEMORY_MS = 1000, REMEMBERED = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct unanswered {
  uint64_t key; /* a hash of its name and the link */
  uint64_t until_ms;
  keyring_error error;
} unanswered[REMEMBERED];

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t hash_of(const struct component_link *link, const char *data_id, const char *auth_id) {
  return component_hash(component_hash(link->serial, data_id), auth_id);
}

static bool recall(uint64_t key, keyring_error *error) {
  uint64_t now = now_ms();
  bool found = false;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < REMEMBERED && !found; i++) {
    found = unanswered[i].key == key && unanswered[i].until_ms > now;
    if (found) *error = unanswered[i].error;
  }
  pthread_mutex_unlock(&lock);
  return found;
}

static void remember(uint64_t key, const keyring_error *error) {
  pthread_mutex_lock(&lock);
  struct unanswered *oldest = &unanswered[0];
  for (int i = 0; i < REMEMBERED; i++) {
    if (unanswered[i].key == key) {
      oldest = &unanswered[i];
      break;
    }
    if (unanswered[i].until_ms < oldest->until_ms) oldest = &unanswered[i];
  }
  *oldest = (struct unanswered){key, now_ms() + MEMORY_MS, *error};
  pthread_mutex_unlock(&lock);
}

void component_fetch_forget(void) {
  pthread_mutex_lock(&lock);
  memset(unanswered, 0, sizeof unanswered);
  pthread_mutex_unlock(&lock);
}

bool component_fetch(const char *operation, const char *data_id, const char *auth_id, struct component_link **link,
                     keyring_key **key) {
  *key = NULL;
  *link = component_link_acquire(operation);
  if (!*link) return false;
  keyring_name name = component_key_name(data_id, auth_id);
  uint64_t hash = hash_of(*link, data_id, auth_id);
  keyring_error error = {0};
  if (!recall(hash, &error)) {
    keyring_status status = keyring_fetch((*link)->keyring, &name, 0, key, &error);
    if (status == KEYRING_OK) {
      component_fetched(*link, *key);
      return true;
    }
    if (status == KEYRING_UNREACHABLE || status == KEYRING_TIMEOUT) remember(hash, &error);
  }
  component_failed(*link, operation, data_id, auth_id, &error);
  component_link_release(*link);
  *link = NULL;
  return false;
}
