/* SPDX-License-Identifier: MIT */
/* How the service is doing: told to the error log when it changes and once in ten minutes while it is bad, and to SHOW STATUS. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

enum { REMINDER_MS = 600000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static keyring_status trouble; /* KEYRING_OK: none */
static uint64_t since_ms, said_ms;
static char last_error[sizeof((keyring_error *)0)->message];
static uint64_t last_error_ms, last_refresh_ms;
static uint64_t failures;

uint64_t plugin_clock_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void plugin_note_success(void) {
  uint64_t now = plugin_clock_ms();
  pthread_mutex_lock(&lock);
  bool is_over = trouble != KEYRING_OK;
  uint64_t lasted = now - since_ms;
  trouble = KEYRING_OK;
  last_refresh_ms = now;
  pthread_mutex_unlock(&lock);
  if (!is_over) return;
  plugin_log(PLUGIN_NOTE, "keyring %s, tenant %s, instance %s: answers again, after %llu s", plugin_settings.servers,
             keyring_tenant(plugin_keyring), keyring_instance(plugin_keyring), (unsigned long long)(lasted / 1000));
}

void plugin_note_failure(const char *what, const keyring_error *error) {
  uint64_t now = plugin_clock_ms();
  pthread_mutex_lock(&lock);
  failures++;
  snprintf(last_error, sizeof last_error, "%s", error->message);
  last_error_ms = now;
  bool is_new = trouble != error->status;
  bool is_said = is_new || now - said_ms >= REMINDER_MS;
  if (trouble == KEYRING_OK) since_ms = now;
  trouble = error->status;
  uint64_t lasted = now - since_ms;
  if (is_said) said_ms = now;
  pthread_mutex_unlock(&lock);
  if (!is_said) return;
  if (is_new) {
    plugin_log(PLUGIN_ERROR, "%s (%s); goes on with the keys in memory, but cannot start again while this lasts", error->message,
               what);
  } else {
    plugin_log(PLUGIN_ERROR, "%s (%s), for %llu s now", error->message, what, (unsigned long long)(lasted / 1000));
  }
}

bool plugin_is_about_one_key(keyring_status status) {
  switch (status) {
    case KEYRING_KEY_ABSENT:
    case KEYRING_LENGTH_INVALID:
    case KEYRING_NAME_INVALID:
    case KEYRING_BAD_ARGUMENT:
    case KEYRING_NO_MEMORY: return true;
    default: return false;
  }
}

static int64_t age(uint64_t then_ms, uint64_t now_ms) { return then_ms == 0 ? -1 : (int64_t)((now_ms - then_ms) / 1000); }

void plugin_state_read(struct plugin_state *state) {
  uint64_t now = plugin_clock_ms();
  pthread_mutex_lock(&lock);
  snprintf(state->state, sizeof state->state, "%s", trouble == KEYRING_OK ? "OK" : keyring_status_name(trouble));
  snprintf(state->last_error, sizeof state->last_error, "%s", last_error);
  state->last_error_age = age(last_error_ms, now);
  state->last_refresh_age = age(last_refresh_ms, now);
  state->failures = failures;
  pthread_mutex_unlock(&lock);
}

void plugin_state_reset(void) {
  pthread_mutex_lock(&lock);
  trouble = KEYRING_OK;
  last_error[0] = 0;
  last_error_ms = 0;
  last_refresh_ms = 0;
  failures = 0;
  pthread_mutex_unlock(&lock);
}
