/* SPDX-License-Identifier: MIT */
/* Every call of libkeyring with right and wrong input, against a server of the test's; ends with 0 where all is as keyring.h says.
 *
 *   every-call calls             all calls, one after the other
 *   every-call threads           16 threads over 4 connections
 *   every-call away SIGN         fetches with a cache; makes the file SIGN.ready, waits for SIGN.gone (the server is stopped by then), fetches again
 *   every-call refused NAME      fetches a key, and prints how that ended */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keyring.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "every-call.c:%d: %s (%s)\n", __LINE__, #condition, e.message); \
      exit(1);                                                                       \
    }                                                                                \
  } while (0)

/* Where a server is there: valgrind and a busy machine may take their time. */
static bool is_patient;

static keyring *opened(const char *cache_ms, const char *cache_outage_ms) {
  keyring_error e = {0};
  keyring *k = NULL;
  keyring_config *config = keyring_config_new();
  CHECK(config);
  CHECK(keyring_config_set_from_environment(config, &e) == KEYRING_OK);
  CHECK(keyring_config_set(config, "cache_ms", cache_ms, &e) == KEYRING_OK);
  CHECK(keyring_config_set(config, "cache_outage_ms", cache_outage_ms, &e) == KEYRING_OK);
  if (is_patient) {
    CHECK(keyring_config_set(config, "timeout_ms", "60000", &e) == KEYRING_OK);
    CHECK(keyring_config_set(config, "connect_timeout_ms", "30000", &e) == KEYRING_OK);
  }
  CHECK(keyring_config_set(config, "cache_ms", "soon", &e) == KEYRING_BAD_ARGUMENT);
  CHECK(keyring_config_set(config, "colour", "red", &e) == KEYRING_BAD_ARGUMENT && strstr(e.message, "colour"));
  CHECK(keyring_open(config, &k, &e) == KEYRING_OK);
  keyring_config_free(config);
  return k;
}

static void identity(keyring *k) {
  keyring_error e = {0};
  keyring_identity who;
  CHECK(keyring_who_am_i(k, &who, &e) == KEYRING_OK);
  CHECK(!strcmp(who.tenant, "acme") && !strcmp(who.instance, "db1") && !strcmp(who.profile, "keyring_aws"));
  CHECK(!strcmp(keyring_tenant(k), "acme") && !strcmp(keyring_instance(k), "db1"));
  CHECK(!who.read_only && who.not_after > 0 && strstr(who.server, "localhost:"));
}

static void changes(keyring *k) {
  keyring_error e = {0};
  const unsigned char value[] = {0, 1, 2, 0, 255};
  keyring_name aes = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, "aes"), secret = keyring_name_of(KEYRING_SCOPE_SHARED, "app@%", "s");
  keyring_key *key = (keyring_key *)1;
  CHECK(keyring_fetch(k, &aes, 0, &key, &e) == KEYRING_OK && key == NULL);
  CHECK(keyring_generate(k, &aes, "AES", 32, &e) == KEYRING_OK);
  CHECK(keyring_generate(k, &aes, "AES", 32, &e) == KEYRING_KEY_EXISTS);
  CHECK(strstr(e.message, "tenant acme, instance db1: KEY_EXISTS"));
  CHECK(keyring_generate(k, &secret, "AES", 33, &e) == KEYRING_LENGTH_INVALID);
  CHECK(keyring_store(k, &secret, "RSA", value, sizeof value, &e) == KEYRING_TYPE_INVALID);
  CHECK(keyring_store(k, &secret, "SECRET", value, sizeof value, &e) == KEYRING_OK);
  CHECK(keyring_fetch(k, &secret, 0, &key, &e) == KEYRING_OK && key);
  CHECK(keyring_key_length(key) == sizeof value && !memcmp(keyring_key_bytes(key), value, sizeof value));
  CHECK(!strcmp(keyring_key_type(key), "SECRET") && keyring_key_version(key) == 1 && !keyring_key_is_stale(key));
  keyring_key_free(key);
  uint32_t version = 0;
  CHECK(keyring_rotate(k, &aes, &version, &e) == KEYRING_OK && version == 2);
  CHECK(keyring_fetch(k, &aes, 1, &key, &e) == KEYRING_OK && key && keyring_key_version(key) == 1);
  CHECK(keyring_key_latest_version(key) == 2);
  keyring_key_free(key);
  CHECK(keyring_fetch(k, &aes, 3, &key, &e) == KEYRING_OK && key == NULL);
  unsigned char small[3], large[64];
  size_t length = 0;
  bool found = false;
  keyring_info info;
  CHECK(keyring_fetch_into(k, &secret, 0, small, sizeof small, &length, &found, NULL, &e) == KEYRING_BUFFER_TOO_SMALL);
  CHECK(length == sizeof value);
  CHECK(keyring_fetch_into(k, &secret, 0, large, sizeof large, &length, &found, &info, &e) == KEYRING_OK && found);
  CHECK(length == sizeof value && !memcmp(large, value, length) && !memcmp(info.owner, "app@%", 5));
  CHECK(keyring_describe(k, &aes, 0, &found, &info, &e) == KEYRING_OK && found && info.length == 32 && info.version == 2);
  CHECK(keyring_rotate(k, &(keyring_name){KEYRING_SCOPE_INSTANCE, NULL, 0, "none", 4}, NULL, &e) == KEYRING_KEY_ABSENT);
  CHECK(keyring_fetch(k, &(keyring_name){KEYRING_SCOPE_INSTANCE, NULL, 0, "", 0}, 0, &key, &e) != KEYRING_OK);
  CHECK(keyring_remove(k, &secret, &e) == KEYRING_OK && keyring_remove(k, &secret, &e) == KEYRING_KEY_ABSENT);
  CHECK(keyring_fetch(k, &secret, 0, &key, &e) == KEYRING_OK && key == NULL); /* not out of the cache */
}

static void listing(keyring *k) {
  keyring_error e = {0};
  for (int i = 0; i < 600; i++) { /* more than a page */
    char id[16];
    snprintf(id, sizeof id, "n%03d", i);
    keyring_name name = keyring_name_of(KEYRING_SCOPE_SHARED, NULL, id);
    CHECK(keyring_store(k, &name, "SECRET", id, 4, &e) == KEYRING_OK);
  }
  keyring_listing *list = NULL;
  CHECK(keyring_list(k, KEYRING_SCOPE_SHARED, NULL, 0, &list, &e) == KEYRING_OK);
  CHECK(keyring_listing_count(list) == 600 && !keyring_listing_entry(list, 600));
  for (size_t i = 0; i < 600; i++) CHECK(atoi((const char *)keyring_listing_entry(list, i)->key_id + 1) == (int)i);
  keyring_listing_free(list);
  CHECK(keyring_list(k, KEYRING_SCOPE_SHARED, "x", 1, &list, &e) == KEYRING_OK && keyring_listing_count(list) == 0);
  keyring_listing_free(list);
}

static keyring *shared;

static void *work(void *argument) {
  keyring_error e = {0};
  char id[16];
  snprintf(id, sizeof id, "t%d", *(int *)argument);
  keyring_name name = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, id);
  for (int round = 0; round < 20; round++) {
    CHECK(keyring_store(shared, &name, "SECRET", id, strlen(id), &e) == KEYRING_OK);
    for (int i = 0; i < 10; i++) {
      keyring_key *key = NULL;
      CHECK(keyring_fetch(shared, &name, 0, &key, &e) == KEYRING_OK && key);
      CHECK(keyring_key_length(key) == strlen(id) && !memcmp(keyring_key_bytes(key), id, strlen(id)));
      keyring_key_free(key);
      if (i == 5) keyring_disconnect(shared);
    }
    CHECK(keyring_remove(shared, &name, &e) == KEYRING_OK);
  }
  return NULL;
}

static void threads(void) {
  keyring_error e = {0};
  shared = opened("100", "0");
  pthread_t ids[16];
  int numbers[16];
  for (int i = 0; i < 16; i++) {
    numbers[i] = i;
    CHECK(pthread_create(&ids[i], NULL, work, &numbers[i]) == 0);
  }
  for (int i = 0; i < 16; i++) CHECK(pthread_join(ids[i], NULL) == 0);
  keyring_close(shared);
}

static void away(const char *sign) {
  keyring_error e = {0};
  keyring *k = opened("1", "600000"), *plain = opened("0", "0");
  keyring_name name = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, "kept"), other = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, "other");
  keyring_key *key = NULL;
  CHECK(keyring_generate(k, &name, "AES", 32, &e) == KEYRING_OK);
  CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && key && !keyring_key_is_stale(key));
  keyring_key_free(key);
  char path[4096];
  snprintf(path, sizeof path, "%s.ready", sign);
  FILE *file = fopen(path, "w");
  CHECK(file && fclose(file) == 0);
  snprintf(path, sizeof path, "%s.gone", sign);
  while (access(path, F_OK)) usleep(10000);
  for (int i = 0; i < 1000; i++) { /* at once: not a deadline each */
    CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && key && keyring_key_is_stale(key));
    keyring_key_free(key);
  }
  CHECK(keyring_fetch(k, &other, 0, &key, &e) == KEYRING_UNREACHABLE && key == NULL);
  CHECK(keyring_fetch(plain, &name, 0, &key, &e) == KEYRING_UNREACHABLE && key == NULL);
  keyring_forget(k);
  CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_UNREACHABLE && key == NULL);
  keyring_close(k);
  keyring_close(plain);
}

int main(int count, char **arguments) {
  is_patient = count == 2;
  if (count == 2 && !strcmp(arguments[1], "calls")) {
    keyring *k = opened("60000", "0");
    identity(k);
    changes(k);
    listing(k);
    keyring_close(k);
  } else if (count == 2 && !strcmp(arguments[1], "threads")) {
    threads();
  } else if (count == 3 && !strcmp(arguments[1], "away")) {
    away(arguments[2]);
  } else if (count == 3 && !strcmp(arguments[1], "refused")) {
    keyring_error e = {0};
    keyring *k = opened("0", "0");
    keyring_name name = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, arguments[2]);
    keyring_key *key = NULL;
    keyring_status status = keyring_fetch(k, &name, 0, &key, &e);
    printf("%s%s %s\n", keyring_status_name(status), key ? " found" : "", status ? e.message : "");
    keyring_key_free(key);
    keyring_close(k);
  } else {
    return 2;
  }
  return 0;
}
