/* SPDX-License-Identifier: MIT */
/* A thread of the plugin's own looks for newer versions. It alone says how the service is doing. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

enum {
  AFTER_FAILURE_SECONDS = 10, /* at most, until it looks again */
  PAUSE_MS = 1000,            /* at least, between two looks */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool is_stopping, is_woken;
static pthread_t thread;
static pid_t owner; /* whose thread it is; 0: there is none */

static void say_lost(keyring_error *error, const char *name, unsigned version, const char *what) {
  error->status = KEYRING_KEY_ABSENT;
  snprintf(error->message, sizeof error->message, "keyring %.200s, tenant %s, instance %s: KEY_ABSENT: key %.200s version %u %s",
           plugin_settings.servers, keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring), name, version, what);
}

static bool stops(void) {
  pthread_mutex_lock(&lock);
  bool stop = is_stopping;
  pthread_mutex_unlock(&lock);
  return stop;
}

/* Looks for a newer version of one key. The announced version is described, not the newest: so it is seen when it is gone. */
static keyring_status look_at(struct plugin_entry *entry, keyring_error *error) {
  unsigned id = plugin_memory_id(entry), announced = plugin_memory_latest(entry);
  /* Only old versions of it were ever wanted; MariaDB has not asked what the newest one is. */
  if (announced == 0) return KEYRING_OK;
  char text[PLUGIN_KEY_NAME_SIZE];
  keyring_name name = plugin_key_name(id, text);
  keyring_info info;
  bool is_found = false;
  keyring_status status = keyring_describe(plugin_keyring, &name, announced, &is_found, &info, error);
  if (status != KEYRING_OK) return status;
  if (!is_found) {
    say_lost(error, text, announced, "is not in the keyring any more: pages under it are lost at the next stop unless it is restored");
    return error->status;
  }
  if (plugin_memory_made(entry, announced, info.created_ms) != info.created_ms) {
    say_lost(error, text, announced, "was removed and made anew: pages under the old one are lost at the next stop unless it is restored");
    return error->status;
  }
  if (info.latest_version <= announced) return plugin_preload_versions(id, announced, stops, error);
  /* Into memory first; then it is announced. */
  status = plugin_fetch(id, 0, error);
  if (status != KEYRING_OK) return status;
  plugin_log(PLUGIN_NOTE, "keyring %s, tenant %s, instance %s: key %s has version %u now", plugin_settings.servers,
             keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring), text, plugin_memory_latest(entry));
  return plugin_preload_versions(id, plugin_memory_latest(entry), stops, error);
}

/* One look at all keys; false: something failed, and was said. */
static bool look(void) {
  keyring_error first = {0}, error = {0};
  char what[PLUGIN_KEY_NAME_SIZE + 64] = "";
  for (struct plugin_entry *entry = plugin_memory_first(); entry && !stops(); entry = plugin_memory_next(entry)) {
    /* Else the next one will fare no better. */
    if (first.status != KEYRING_OK && !plugin_is_about_one_key(first.status)) break;
    keyring_status status = look_at(entry, &error);
    if (status == KEYRING_OK) continue;
    bool is_worst = first.status == KEYRING_OK || !plugin_is_about_one_key(status);
    if (is_worst) {
      char name[PLUGIN_KEY_NAME_SIZE];
      plugin_key_name(plugin_memory_id(entry), name);
      first = error;
      first.status = status;
      snprintf(what, sizeof what, "looking for newer versions of %s", name);
    }
  }
  if (first.status == KEYRING_OK && !stops()) {
    first.status = plugin_preload(stops, &first);
    snprintf(what, sizeof what, "fetching the keys that nobody has asked for yet");
  }
  if (stops()) return true;
  if (first.status == KEYRING_OK) {
    plugin_note_success();
  } else {
    plugin_note_failure(what, &first);
  }
  return first.status == KEYRING_OK;
}

/* Many servers that were started together do not ask together: 10 percent more or less. */
static uint64_t pause_ms(bool is_good, unsigned *seed) {
  unsigned seconds = plugin_settings.refresh_seconds;
  if (!is_good && seconds > AFTER_FAILURE_SECONDS) seconds = AFTER_FAILURE_SECONDS;
  uint64_t ms = (uint64_t)seconds * 1000;
  return ms - ms / 10 + (uint64_t)rand_r(seed) % (ms / 5 + 1);
}

static void wait_until(uint64_t until_ms, bool wakes) {
  struct timespec until = {(time_t)(until_ms / 1000), (long)(until_ms % 1000) * 1000000};
  pthread_mutex_lock(&lock);
  while (!is_stopping && !(wakes && is_woken)) {
    if (pthread_cond_timedwait(&changed, &lock, &until) != 0) break;
  }
  if (wakes) is_woken = false;
  pthread_mutex_unlock(&lock);
}

static void *run(void *unused) {
  (void)unused;
  unsigned seed = (unsigned)plugin_clock_ms() ^ (unsigned)getpid();
  bool is_good = true;
  while (!stops()) {
    uint64_t looked = plugin_clock_ms();
    wait_until(looked + PAUSE_MS, false);
    wait_until(looked + pause_ms(is_good, &seed), true);
    if (!stops()) is_good = look();
  }
  return NULL;
}

bool plugin_refresh_start(void) {
  pthread_condattr_t attributes;
  if (pthread_condattr_init(&attributes) != 0) return false;
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  bool made = pthread_cond_init(&changed, &attributes) == 0;
  pthread_condattr_destroy(&attributes);
  if (!made) return false;
  is_stopping = false;
  is_woken = true;
  /* mariadbd's signals are for a thread of mariadbd's; those of a crash here are for its handler, which says where. */
  static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  sigset_t all, before;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigdelset(&all, crashes[i]);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&thread, NULL, run, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!started) {
    pthread_cond_destroy(&changed);
    return false;
  }
  pthread_setname_np(thread, "keyring-refresh");
  owner = getpid();
  return true;
}

void plugin_refresh_wake(void) {
  pthread_mutex_lock(&lock);
  is_woken = true;
  if (owner != 0) pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
}

void plugin_refresh_stop(void) {
  /* A thread does not go along through a fork(): there is none to wait for. */
  if (owner == 0 || owner != getpid()) return;
  pthread_mutex_lock(&lock);
  is_stopping = true;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  pthread_join(thread, NULL);
  pthread_cond_destroy(&changed);
  owner = 0;
}
