/* SPDX-License-Identifier: MIT */
/* Calls to a server that answers no good: prints how each ended, by name.
 *
 *   hostile-client each          each call once, with a keyring of its own
 *   hostile-client many COUNT    so many calls, and nothing printed: whatever they answer, they are to end well
 *   hostile-client twice         two fetches on one connection
 *   hostile-client busy          a fetch, then two at a time, with a cache for outages and one connection
 *   hostile-client refreshed     a fetch, then one that is not answered while another one is
 *   hostile-client forgotten     a fetch, the cache wiped while that goes on, and another fetch */
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "keyring.h"

enum { CALLS = 10 };

static const char *timeout_ms = "600";

static keyring *opened(const char *connections, const char *cache_ms, const char *cache_outage_ms) {
  keyring_error e = {0};
  keyring *k = NULL;
  keyring_config *config = keyring_config_new();
  if (keyring_config_set_from_environment(config, &e) || keyring_config_set(config, "timeout_ms", timeout_ms, &e) ||
      keyring_config_set(config, "connections", connections, &e) || keyring_config_set(config, "cache_ms", cache_ms, &e) ||
      keyring_config_set(config, "cache_outage_ms", cache_outage_ms, &e) || keyring_open(config, &k, &e)) {
    fprintf(stderr, "%s\n", e.message);
    exit(1);
  }
  keyring_config_free(config);
  return k;
}

static keyring_status perform(keyring *k, int which, const char **what, bool *absent, keyring_error *e) {
  static const char *const names[CALLS] = {"who", "fetch", "fetch_into", "describe", "list", "store", "generate", "rotate", "remove", "list_of"};
  keyring_name name = keyring_name_of(KEYRING_SCOPE_INSTANCE, NULL, "k");
  keyring_identity who;
  keyring_info info;
  keyring_key *key = NULL;
  keyring_listing *listing = NULL;
  unsigned char buffer[64];
  size_t length;
  bool found = true;
  keyring_status status;
  *what = names[which];
  *absent = false;
  switch (which) {
  case 0: return keyring_who_am_i(k, &who, e);
  case 1:
    status = keyring_fetch(k, &name, 0, &key, e);
    *absent = status == KEYRING_OK && !key;
    keyring_key_free(key);
    return status;
  case 2:
    status = keyring_fetch_into(k, &name, 0, buffer, sizeof buffer, &length, &found, &info, e);
    *absent = status == KEYRING_OK && !found;
    return status;
  case 3:
    status = keyring_describe(k, &name, 0, &found, &info, e);
    *absent = status == KEYRING_OK && !found;
    return status;
  case 4:
    status = keyring_list(k, KEYRING_SCOPE_INSTANCE, NULL, 0, &listing, e);
    *absent = status == KEYRING_OK && keyring_listing_count(listing) == 0;
    keyring_listing_free(listing);
    return status;
  case 5: return keyring_store(k, &name, "SECRET", "value", 5, e);
  case 6: return keyring_generate(k, &name, "AES", 32, e);
  case 7: return keyring_rotate(k, &name, NULL, e);
  case 8: return keyring_remove(k, &name, e);
  default:
    status = keyring_list(k, KEYRING_SCOPE_INSTANCE, "", 0, &listing, e);
    keyring_listing_free(listing);
    return status;
  }
}

/* Of one line, of UTF-8, and without what a terminal obeys. */
static bool is_clean(const char *message) {
  return !strpbrk(message, "\n\033") && !strstr(message, "\xc2\x9b") && mbstowcs(NULL, message, 0) != (size_t)-1;
}

typedef struct fetching {
  keyring *k;
  char told[64];
} fetching;

static void *fetch(void *argument) {
  fetching *f = argument;
  keyring_error e = {0};
  keyring_name name = keyring_name_of(KEYRING_SCOPE_INSTANCE, NULL, "k");
  keyring_key *key = NULL;
  time_t begin = time(NULL);
  keyring_status status = keyring_fetch(f->k, &name, 0, &key, &e);
  snprintf(f->told, sizeof f->told, "%s%s%s\n", keyring_status_name(status), !key ? " nothing" : keyring_key_is_stale(key) ? " stale" : "",
           time(NULL) - begin > 10 ? " late" : "");
  keyring_key_free(key);
  return NULL;
}

/* A fetch, and after `pause_ms` two more, the second one `apart_ms` after the first; all on one keyring. */
static int two_at_a_time(keyring *k, useconds_t pause_ms, useconds_t apart_ms) {
  fetching first = {.k = k}, second = {.k = k}, third = {.k = k};
  pthread_t thread;
  (void)fetch(&first);
  usleep(pause_ms * 1000);
  if (pthread_create(&thread, NULL, fetch, &second)) return 3;
  usleep(apart_ms * 1000);
  (void)fetch(&third);
  if (pthread_join(thread, NULL)) return 3;
  printf("%s%s%s", first.told, second.told, third.told);
  keyring_close(k);
  return 0;
}

static int forgotten(void) {
  timeout_ms = "20000";
  fetching first = {.k = opened("1", "60000", "0")}, second = {.k = first.k};
  pthread_t thread;
  if (pthread_create(&thread, NULL, fetch, &first)) return 3;
  usleep(400000);
  keyring_forget(first.k);
  if (pthread_join(thread, NULL)) return 3;
  (void)fetch(&second);
  printf("%s%s", first.told, second.told);
  keyring_close(first.k);
  return 0;
}

int main(int count, char **arguments) {
  alarm(120);
  (void)signal(SIGPIPE, SIG_DFL);
  if (!setlocale(LC_ALL, "C.UTF-8")) return 2;
  keyring_error e = {0};
  const char *what;
  bool absent;
  if (count == 2 && !strcmp(arguments[1], "each")) {
    for (int which = 0; which < CALLS; which++) {
      keyring *k = opened("4", "0", "0");
      time_t begin = time(NULL);
      keyring_status status = perform(k, which, &what, &absent, &e);
      bool is_late = time(NULL) - begin > 10;
      bool is_dirty = status != KEYRING_OK && !is_clean(e.message);
      printf("%s %s%s%s%s\n", what, keyring_status_name(status), absent ? " absent" : "", is_late ? " late" : "", is_dirty ? " dirty" : "");
      keyring_close(k);
    }
    return 0;
  }
  if (count == 2 && !strcmp(arguments[1], "twice")) {
    fetching f = {.k = opened("1", "0", "0")};
    for (int i = 0; i < 2; i++) {
      (void)fetch(&f);
      printf("%s", f.told);
      usleep(50000);
    }
    keyring_close(f.k);
    return 0;
  }
  if (count == 2 && !strcmp(arguments[1], "busy")) return two_at_a_time(opened("1", "1", "60000"), 20, 0);
  if (count == 2 && !strcmp(arguments[1], "refreshed")) return two_at_a_time(opened("2", "3000", "60000"), 3100, 200);
  if (count == 2 && !strcmp(arguments[1], "forgotten")) return forgotten();
  if (count != 3) return 2;
  keyring *k = opened("4", "0", "0");
  int good = 0;
  for (int i = 0; i < atoi(arguments[2]); i++) {
    static const int calls[] = {1, 4, 7}; /* those that the server has whole answers for */
    keyring_status status = perform(k, calls[i % 3], &what, &absent, &e);
    good += status == KEYRING_OK;
    if (!strcmp(keyring_status_name(status), "NO_MEMORY") || status == KEYRING_BAD_ARGUMENT) return 3;
  }
  keyring_close(k);
  printf("%d\n", good);
  return 0;
}
