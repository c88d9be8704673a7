/* SPDX-License-Identifier: MIT */
/* What happens to a program that uses libkeyring, in a long life. SIGPIPE is as the system has it, and ends it.
 *
 *   life changes STOP     8 threads of changes until the file STOP is there, each that was acknowledged a dot; then all of them are there, and
 *                         once
 *   life fork             both sides of a fork go on
 *   life poll FILE        fetches `k` for each line of FILE, which grows, until `q`; each answer is a line. `d`: on a new connection;
 *                         `b`: with no time for outages; `j`: another key; `e`: on a new connection, while no file can be opened
 *   life fair             4 threads get one connection in turn
 *   life locked [allow]   as if RLIMIT_MEMLOCK were 0
 *   life scarce           a cache that wants more locked memory than there is
 *   life small            a fetch with 512 KiB of locked memory; prints how it ended
 *   life scan             no copy of a fetched key is left */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keyring.h"

#define CHECK(condition)                                                                                                      \
  do {                                                                                                                        \
    if (!(condition)) {                                                                                                       \
      fprintf(stderr, "life.c:%d: %s (%s)\n", __LINE__, #condition, e.message);                                               \
      exit(1);                                                                                                                \
    }                                                                                                                         \
  } while (0)

static keyring_status try_open(keyring **k, const char *settings[][2], keyring_error *e) {
  keyring_config *config = keyring_config_new();
  keyring_status status = keyring_config_set_from_environment(config, e);
  for (int i = 0; !status && settings[i][0]; i++) status = keyring_config_set(config, settings[i][0], settings[i][1], e);
  if (!status) status = keyring_open(config, k, e);
  keyring_config_free(config);
  return status;
}

static keyring *opened(const char *settings[][2]) {
  keyring_error e = {0};
  keyring *k = NULL;
  CHECK(try_open(&k, settings, &e) == KEYRING_OK);
  return k;
}

static const char *plain[][2] = {{NULL, NULL}};

static keyring_name named(const char *id) { return keyring_name_of(KEYRING_SCOPE_INSTANCE, NULL, id); }

/* ---- Changes ---- */

static keyring *shared;
static const char *stop;

typedef struct worker {
  int number, stored;
  bool is_there[4000]; /* acknowledged */
  uint32_t version;    /* of its own key, as acknowledged */
} worker;

static void rotate(worker *w, const keyring_name *own) {
  keyring_error e = {0};
  keyring_info info;
  bool found = false;
  uint32_t version = 0;
  keyring_status status = keyring_rotate(shared, own, &version, &e);
  if (status == KEYRING_OK) {
    CHECK(version == w->version + 1); /* a repeated one that happened twice would be one more */
    w->version = version;
    return;
  }
  /* Not known: once, or not at all. */
  while (keyring_describe(shared, own, 0, &found, &info, &e) != KEYRING_OK) usleep(20000);
  CHECK(found && (info.version == w->version || (status == KEYRING_OUTCOME_UNKNOWN && info.version == w->version + 1)));
  w->version = info.version;
}

static void *work(void *argument) {
  worker *w = argument;
  keyring_error e = {0};
  char id[32];
  snprintf(id, sizeof id, "own%d", w->number);
  keyring_name own = named(id);
  char own_id[32];
  memcpy(own_id, id, sizeof id);
  own.key_id = own_id;
  while (keyring_generate(shared, &own, "AES", 32, &e) != KEYRING_OK && e.status != KEYRING_KEY_EXISTS) usleep(20000);
  w->version = 1;
  for (w->stored = 0; w->stored < 4000 && access(stop, F_OK); w->stored++) {
    snprintf(id, sizeof id, "w%d.%d", w->number, w->stored);
    keyring_name name = named(id);
    keyring_status status = keyring_store(shared, &name, "SECRET", id, strlen(id), &e);
    /* Its own repetition does not find what it did itself. */
    CHECK(status != KEYRING_KEY_EXISTS);
    w->is_there[w->stored] = status == KEYRING_OK;
    if (status == KEYRING_OK) CHECK(write(STDOUT_FILENO, ".", 1) == 1);
    rotate(w, &own);
  }
  return NULL;
}

static void changes(void) {
  static worker workers[8];
  static const char *settings[][2] = {{"timeout_ms", "20000"}, {NULL, NULL}};
  keyring_error e = {0};
  pthread_t threads[8];
  shared = opened(settings);
  for (int i = 0; i < 8; i++) {
    workers[i].number = i;
    CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
  }
  int acknowledged = 0;
  for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (int i = 0; i < 8; i++) {
    for (int j = 0; j < workers[i].stored; j++) {
      if (!workers[i].is_there[j]) continue;
      char id[32];
      snprintf(id, sizeof id, "w%d.%d", i, j);
      keyring_name name = named(id);
      keyring_key *key = NULL;
      CHECK(keyring_fetch(shared, &name, 0, &key, &e) == KEYRING_OK && key && keyring_key_length(key) == strlen(id));
      keyring_key_free(key);
      acknowledged++;
    }
  }
  printf("\n%d\n", acknowledged);
  keyring_close(shared);
}

/* ---- Others ---- */

static void fetch_once(keyring *k, bool is_there) {
  keyring_error e = {0};
  keyring_name name = named("k");
  keyring_key *key = NULL;
  CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && (key != NULL) == is_there);
  keyring_key_free(key);
}

static int turns; /* of all threads */

static void *take_turns(void *argument) {
  keyring_error e = {0};
  while (__atomic_add_fetch(&turns, 1, __ATOMIC_RELAXED) <= 400) {
    keyring_name name = named("k");
    keyring_info info;
    bool found;
    CHECK(keyring_describe(shared, &name, 0, &found, &info, &e) == KEYRING_OK);
    *(int *)argument += 1;
  }
  return NULL;
}

/* Who gives the connection back and wants it again is the last, not the next. */
static void fair(void) {
  static const char *settings[][2] = {{"connections", "1"}, {"timeout_ms", "60000"}, {NULL, NULL}};
  keyring_error e = {0};
  pthread_t threads[4];
  int own[4] = {0};
  shared = opened(settings);
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, take_turns, &own[i]) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  printf("%d %d %d %d\n", own[0], own[1], own[2], own[3]);
  for (int i = 0; i < 4; i++) CHECK(own[i] >= 60);
  keyring_close(shared);
}

static void forked(void) {
  keyring_error e = {0};
  keyring *k = opened(plain);
  keyring_name name = named("k");
  CHECK(keyring_generate(k, &name, "AES", 32, &e) == KEYRING_OK);
  fetch_once(k, true);
  pid_t child = fork();
  CHECK(child >= 0);
  for (int i = 0; i < 300; i++) fetch_once(k, true); /* at the same time on both sides: no connection may be shared */
  keyring_close(k);
  if (child == 0) _exit(0);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void allow_files(rlim_t most) {
  keyring_error e = {0};
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = most;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void polled(const char *path) {
  static const char *settings[][2] = {{"timeout_ms", "3000"}, {"cache_ms", "1"}, {"cache_outage_ms", "60000"}, {NULL, NULL}};
  static const char *brief[][2] = {{"timeout_ms", "3000"}, {"cache_ms", "1"}, {"cache_outage_ms", "1"}, {NULL, NULL}};
  keyring *both[] = {opened(settings), opened(brief)};
  char line[64];
  keyring_error e = {0};
  FILE *orders = fopen(path, "r");
  CHECK(orders);
  for (;;) {
    if (!fgets(line, sizeof line, orders)) { /* no more of them yet */
      clearerr(orders);
      usleep(10000);
      continue;
    }
    if (line[0] == 'q') break;
    keyring *k = both[line[0] == 'b'];
    if (strpbrk(line, "de")) keyring_disconnect(k);
    usleep(5000); /* past cache_ms */
    keyring_key *key = NULL;
    keyring_name name = named(line[0] == 'j' ? "j" : "k");
    if (line[0] == 'e') allow_files(0);
    keyring_status status = keyring_fetch(k, &name, 0, &key, &e);
    if (line[0] == 'e') allow_files(1024);
    printf("%s%s\n", keyring_status_name(status), !key ? " absent" : keyring_key_is_stale(key) ? " stale" : "");
    fflush(stdout);
    keyring_key_free(key);
  }
  fclose(orders);
  keyring_close(both[0]);
  keyring_close(both[1]);
}

/* As a program that is not root's. */
static void limit_locked_memory(rlim_t most) {
  keyring_error e = {0};
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  CHECK(syscall(SYS_capget, &header, data) == 0);
  data[0].effective &= ~(1u << CAP_IPC_LOCK);
  CHECK(syscall(SYS_capset, &header, data) == 0);
  struct rlimit limit = {most, most};
  CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

static void locked(bool allow) {
  static const char *settings[][2] = {{"allow_unlocked_memory", "true"}, {NULL, NULL}};
  keyring_error e = {0};
  keyring *k = NULL;
  keyring_key *key = NULL;
  keyring_name name = named("k");
  if (!allow) {
    /* Found in the midst of it, too: in the child of a fork, whose locks are gone. */
    keyring *before = opened(plain);
    limit_locked_memory(0);
    CHECK(try_open(&k, plain, &e) == KEYRING_NO_MEMORY && !k);
    pid_t child = fork();
    if (child == 0) {
      for (int i = 0; i < 2; i++) CHECK(keyring_fetch(before, &name, 0, &key, &e) == KEYRING_NO_MEMORY && !key);
      _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    keyring_close(before);
    return;
  }
  limit_locked_memory(0);
  k = opened(settings);
  fetch_once(k, false);
  keyring_close(k);
}

static void scarce(void) {
  static const char *settings[][2] = {{"cache_ms", "600000"}, {NULL, NULL}};
  static unsigned char value[4096];
  keyring_error e = {0};
  limit_locked_memory(128 * 1024); /* less than its 64 keys */
  keyring *k = opened(settings);
  memset(value, 7, sizeof value);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 80; i++) {
      char id[16];
      snprintf(id, sizeof id, "s%d", i);
      keyring_name name = named(id);
      if (round == 0) CHECK(keyring_store(k, &name, "SECRET", value, sizeof value, &e) == KEYRING_OK);
      keyring_key *key = NULL;
      CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && key && keyring_key_length(key) == sizeof value);
      keyring_key_free(key);
    }
  }
  /* Nor does it keep the one that is asked for from being handed out. */
  keyring_key *held[10] = {NULL};
  keyring_name last = named("s79");
  for (int i = 0; i < 10; i++) CHECK(keyring_fetch(k, &last, 0, &held[i], &e) == KEYRING_OK && held[i]);
  for (int i = 0; i < 10; i++) keyring_key_free(held[i]);
  keyring_close(k);
}

static void small(void) {
  limit_locked_memory(512 * 1024);
  keyring *k = opened(plain);
  keyring_name name = named("k");
  keyring_key *key = NULL;
  printf("%s\n", keyring_status_name(keyring_fetch(k, &name, 0, &key, NULL)));
  keyring_key_free(key);
  keyring_close(k);
}

/* ---- The scan ---- */

static unsigned char marked(int index) { return (unsigned char)((index + 0x51) * 0x9d + index * index); }

static int count_in(const unsigned char *bytes, size_t length) {
  int hits = 0;
  for (size_t at = 0; at + 32 <= length; at++) {
    int i = 0;
    while (i < 32 && bytes[at + (size_t)i] == marked(i)) i++;
    hits += i == 32;
  }
  return hits;
}

/* In all memory that can be written to, but for the scan's own. */
static int copies(void) {
  enum { CHUNK = 1 << 20 };
  keyring_error e = {0};
  unsigned char *own = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(own != MAP_FAILED);
  int memory = open("/proc/self/mem", O_RDONLY), hits = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(memory >= 0 && maps);
  char line[512];
  while (fgets(line, sizeof line, maps)) {
    unsigned long from, to;
    char mode[5];
    if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || strncmp(mode, "rw", 2)) continue;
    for (unsigned long at = from; at < to; at += CHUNK - 32) {
      size_t wanted = to - at < CHUNK ? to - at : CHUNK;
      if (at < (unsigned long)own + CHUNK && at + wanted > (unsigned long)own) continue;
      ssize_t got = pread(memory, own, wanted, (off_t)at);
      if (got > 0) hits += count_in(own, (size_t)got);
    }
  }
  fclose(maps);
  close(memory);
  munmap(own, CHUNK);
  return hits;
}

static void scan(void) {
  static const char *settings[][2] = {{"cache_ms", "600000"}, {NULL, NULL}};
  keyring_error e = {0};
  keyring *k = opened(settings);
  keyring_name name = named("k");
  unsigned char *value = malloc(32), *into = malloc(32);
  CHECK(value && into);
  for (int i = 0; i < 32; i++) value[i] = marked(i);
  CHECK(keyring_store(k, &name, "SECRET", value, 32, &e) == KEYRING_OK);
  explicit_bzero(value, 32);
  CHECK(copies() == 0); /* nothing of the store */
  keyring_key *key = NULL;
  size_t length = 0;
  bool found = false;
  CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && key);
  int held = copies();
  if (held != 2) fprintf(stderr, "%d copies while one is held and one is cached\n", held);
  CHECK(held == 2);
  CHECK(keyring_fetch_into(k, &name, 1, into, 32, &length, &found, NULL, &e) == KEYRING_OK && found);
  explicit_bzero(into, 32);
  keyring_key_free(key);
  CHECK(copies() == 1); /* the cache's */
  keyring_forget(k);
  CHECK(copies() == 0); /* with the connection open: nor in OpenSSL's buffers */
  CHECK(keyring_fetch(k, &name, 0, &key, &e) == KEYRING_OK && key);
  keyring_key_free(key);
  keyring_close(k);
  CHECK(copies() == 0);
  free(value);
  free(into);
}

int main(int count, char **arguments) {
  alarm(240);
  (void)signal(SIGPIPE, SIG_DFL);
  const char *mode = count > 1 ? arguments[1] : "";
  stop = count > 2 ? arguments[2] : "";
  if (!strcmp(mode, "changes")) changes();
  else if (!strcmp(mode, "fork")) forked();
  else if (!strcmp(mode, "poll") && count == 3) polled(arguments[2]);
  else if (!strcmp(mode, "locked")) locked(count > 2);
  else if (!strcmp(mode, "scarce")) scarce();
  else if (!strcmp(mode, "small")) small();
  else if (!strcmp(mode, "scan")) scan();
  else if (!strcmp(mode, "fair")) fair();
  else return 2;
  return 0;
}
