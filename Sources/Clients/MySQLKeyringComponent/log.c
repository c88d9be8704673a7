/* SPDX-License-Identifier: MIT */
/* Lines of MySQL's error log. The log's service is acquired for each line: it may not be held, since then the component that
 * has it could never be unloaded; it is not there in mysql_migrate_keyring, where stderr takes the line. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "component.h"

enum {
  LINE_SIZE = 1400,
  QUIET_SECONDS = 5, /* between two lines of one kind */
  KINDS = 16         /* kinds of failures printed in that time */
};

struct mysql_abi_registry *component_registry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kind {
  uint64_t hash;
  time_t printed; /* 0: free */
  unsigned left_out;
} kinds[KINDS];
static unsigned left_out_of_all;

static void emit(enum mysql_abi_severity severity, const char *line) {
  struct mysql_abi_registry *registry = component_registry;
  mysql_abi_service service = NULL;
  if (registry && registry->acquire("mysql_simple_error_log", &service) == 0 && service) {
    struct mysql_abi_error_log *log = (struct mysql_abi_error_log *)service;
    log->emit("Keyring", __FILE__, __LINE__, severity, MYSQL_ABI_LOG_MESSAGE, line);
    registry->release(service);
    return;
  }
  fprintf(stderr, COMPONENT_NAME ": %s\n", line);
}

void component_log(enum mysql_abi_severity severity, const char *format, ...) {
  char line[LINE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  emit(severity, line);
}

/* True where this one is to be printed; `left_out` becomes how many like it were not. */
static bool admit(uint64_t hash, time_t now, unsigned *left_out) {
  struct kind *place = NULL;
  for (int i = 0; i < KINDS; i++) {
    struct kind *kind = &kinds[i];
    bool old = kind->printed == 0 || now - kind->printed >= QUIET_SECONDS;
    if (kind->printed && kind->hash == hash) {
      if (!old) {
        kind->left_out++;
        return false;
      }
      place = kind;
      break;
    }
    if (old && (!place || kind->printed < place->printed)) place = kind;
  }
  if (!place) {
    left_out_of_all++;
    return false;
  }
  /* What a kind that nobody has seen again left out is told with the next line. */
  *left_out = place->left_out + left_out_of_all;
  *place = (struct kind){hash, now, 0};
  left_out_of_all = 0;
  return true;
}

void component_log_failure(enum mysql_abi_severity severity, uint64_t kind, const char *line) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  unsigned left_out = 0;
  pthread_mutex_lock(&lock);
  bool print = admit(kind, now.tv_sec + 1, &left_out);
  pthread_mutex_unlock(&lock);
  if (!print) return;
  if (left_out == 0) {
    component_log(severity, "%s", line);
  } else {
    component_log(severity, "%s; %u more failures since the last line were not printed", line, left_out);
  }
}
