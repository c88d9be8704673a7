/* SPDX-License-Identifier: MIT */
/* Why something inside the library failed, and how it becomes the keyring_error of the caller. */
#ifndef KEYRING_FAILURE_H
#define KEYRING_FAILURE_H

#include "keyring.h"

typedef struct failure {
  keyring_status status;
  uint32_t retry_after_ms;
  bool is_own; /* it says nothing of the servers */
  bool is_of_stranger; /* whoever said no had not shown yet that it is the server */
  char server[272]; /* `host:port`, `` where it is about none */
  char text[448];
} failure;

/* Fills it in, with the server as it was and the rest 0; returns `status`. */
keyring_status failure_set(failure *f, keyring_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts a sentence after what is there, where it fits. */
void failure_add(failure *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copies whole characters of a peer's text, at most `capacity` - 1 bytes, with everything that is no UTF-8 or controls a terminal replaced:
 * messages are one line, and go to logs and terminals. */
void failure_copy_text(char *to, size_t capacity, const char *from);

/* For the caller; `tenant` and `instance` may be `` or NULL; `error` may be NULL. Returns the status. */
keyring_status failure_report(const failure *f, const char *tenant, const char *instance, keyring_error *error);

/* The name of a status; NULL where this library knows none. */
const char *failure_known_name(keyring_status status);

#endif
