/* SPDX-License-Identifier: MIT */
/* Lines of MariaDB's error log, through its service my_print_error. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <mysql/plugin.h>

#include "plugin.h"

enum {
  LINE_SIZE = 500,     /* the service cuts at 512 */
  QUIET_MS = 30000,    /* between two lines of one kind */
  KINDS = 16,          /* kinds of questions printed in that time */
  SERVICE_VERSION = 0x0100,
  ERROR_NUMBER = 1105, /* ER_UNKNOWN_ERROR: the number that SHOW WARNINGS prints */
};

/* mariadbd finds the version here and puts its functions in its place. */
__attribute__((visibility("default"))) struct my_print_error_service_st *my_print_error_service =
    (struct my_print_error_service_st *)SERVICE_VERSION;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kind {
  uint64_t hash;
  uint64_t printed_ms; /* 0: free */
  unsigned left_out;
} kinds[KINDS];
static unsigned left_out_of_all;

/* Reasons may hold bytes of file names: none of them makes a line of the log. */
static void print(unsigned long flags, char *line) {
  for (char *byte = line; *byte; byte++) {
    if ((unsigned char)*byte < 32 || *byte == 127) *byte = '?';
  }
  my_printf_error(ERROR_NUMBER, "%s", flags, line);
}

void plugin_log(enum plugin_severity severity, const char *format, ...) {
  char line[LINE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  unsigned long kind = severity == PLUGIN_NOTE ? ME_NOTE : severity == PLUGIN_WARNING ? ME_WARNING : 0;
  print(ME_ERROR_LOG_ONLY | kind, line);
}

/* True where this one is to be printed; `left_out` becomes how many were not. */
static bool admit(uint64_t hash, uint64_t now, unsigned *left_out) {
  struct kind *place = NULL;
  for (int i = 0; i < KINDS; i++) {
    struct kind *kind = &kinds[i];
    bool old = kind->printed_ms == 0 || now - kind->printed_ms >= QUIET_MS;
    if (kind->printed_ms && kind->hash == hash) {
      if (!old) {
        kind->left_out++;
        return false;
      }
      place = kind;
      break;
    }
    if (old && (!place || kind->printed_ms < place->printed_ms)) place = kind;
  }
  if (!place) {
    left_out_of_all++;
    return false;
  }
  *left_out = place->left_out + left_out_of_all;
  *place = (struct kind){hash, now, 0};
  left_out_of_all = 0;
  return true;
}

void plugin_log_question(uint64_t kind, const char *text) {
  unsigned left_out = 0;
  pthread_mutex_lock(&lock);
  bool is_printed = admit(kind, plugin_clock_ms() + 1, &left_out);
  pthread_mutex_unlock(&lock);
  char line[LINE_SIZE];
  if (left_out == 0) {
    snprintf(line, sizeof line, "%s", text);
  } else {
    snprintf(line, sizeof line, "%.420s; %u more since the last line were not printed", text, left_out);
  }
  /* A warning, not an error: an error of its own would end the statement in a way that its code does not expect. */
  if (is_printed) print(ME_WARNING | ME_ERROR_LOG, line);
}

void plugin_log_reset(void) {
  pthread_mutex_lock(&lock);
  memset(kinds, 0, sizeof kinds);
  left_out_of_all = 0;
  pthread_mutex_unlock(&lock);
}
