/* SPDX-License-Identifier: MIT */
/* Failures in words. */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
  keyring_status status;
  const char *name;
} names[] = {
#define NAME(x) {KEYRING_##x, #x}
    NAME(OK), NAME(KEY_EXISTS), NAME(KEY_ABSENT), NAME(NAME_INVALID), NAME(TYPE_INVALID), NAME(LENGTH_INVALID),
    NAME(REQUEST_MALFORMED), NAME(FORBIDDEN), NAME(TENANT_LOCKED), NAME(TENANT_DISABLED), NAME(TENANT_QUARANTINED),
    NAME(KMS_UNREACHABLE), NAME(KMS_DENIED), NAME(STORAGE_CHANGED), NAME(STORAGE_UNAVAILABLE), NAME(OUTCOME_UNKNOWN),
    NAME(THROTTLED), NAME(WRAPPING_KEY_EXHAUSTED), NAME(IDEMPOTENCY_MISMATCH), NAME(STALE), NAME(LIST_EXPIRED), NAME(TIMEOUT),
    NAME(VARIABLE_INVALID), NAME(SHUTTING_DOWN), NAME(INTERNAL_ERROR), NAME(MESSAGE_TOO_LARGE), NAME(CMK_TRANSIENT),
    NAME(PROVIDER_REFUSED), NAME(CONFIGURATION_INVALID), NAME(AUDIT_UNAVAILABLE), NAME(BAD_ARGUMENT), NAME(BAD_CONFIGURATION),
    NAME(UNREACHABLE), NAME(REFUSED), NAME(PROTOCOL), NAME(NO_MEMORY), NAME(BUFFER_TOO_SMALL),
#undef NAME
};

const char *failure_known_name(keyring_status status) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (names[i].status == status) return names[i].name;
  }
  return NULL;
}

const char *keyring_status_name(keyring_status status) {
  const char *name = failure_known_name(status);
  return name ? name : "UNKNOWN_STATUS";
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
const char *keyring_version(void) { return TEXT(KEYRING_VERSION_MAJOR) "." TEXT(KEYRING_VERSION_MINOR); }

/* The length of the character of UTF-8 at `from`; 0: it is cut off by the end; -1: it is none, or one that controls a terminal (C1). */
static int character(const unsigned char *from) {
  if (from[0] < 0x80) return from[0] < 0x20 || from[0] == 0x7f ? -1 : 1;
  int length = from[0] < 0xc2 ? -1 : from[0] < 0xe0 ? 2 : from[0] < 0xf0 ? 3 : from[0] < 0xf5 ? 4 : -1;
  for (int i = 1; i < length; i++) {
    if (from[i] == 0) return 0;
    if ((from[i] & 0xc0) != 0x80) return -1;
  }
  bool is_c1 = from[0] == 0xc2 && from[1] < 0xa0, is_too_long = (from[0] == 0xe0 && from[1] < 0xa0) || (from[0] == 0xf0 && from[1] < 0x90);
  bool is_none = (from[0] == 0xed && from[1] >= 0xa0) || (from[0] == 0xf4 && from[1] >= 0x90);
  return is_c1 || is_too_long || is_none ? -1 : length;
}

void failure_copy_text(char *to, size_t capacity, const char *from) {
  const unsigned char *at = (const unsigned char *)from;
  size_t done = 0;
  while (at && *at) {
    int length = character(at);
    size_t step = length > 0 ? (size_t)length : 1;
    if (length == 0 || done + step >= capacity) break;
    if (length > 0) memcpy(to + done, at, step);
    else to[done] = '?';
    done += step;
    at += step;
  }
  to[done] = 0;
}

keyring_status failure_set(failure *f, keyring_status status, const char *format, ...) {
  char text[sizeof f->text];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  failure_copy_text(f->text, sizeof f->text, text);
  f->status = status;
  f->retry_after_ms = 0;
  f->is_own = f->is_of_stranger = false;
  return status;
}

void failure_add(failure *f, const char *format, ...) {
  char text[sizeof f->text];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  size_t length = strlen(f->text);
  failure_copy_text(f->text + length, sizeof f->text - length, text);
}

keyring_status failure_report(const failure *f, const char *tenant, const char *instance, keyring_error *error) {
  if (!error) return f->status;
  error->status = f->status;
  error->retry_after_ms = f->retry_after_ms;
  const char *name = failure_known_name(f->status);
  char number[32];
  if (!name) {
    (void)snprintf(number, sizeof number, "reason %d", (int)f->status);
    name = number;
  }
  char message[sizeof f->server + sizeof f->text + 256];
  bool has_tenant = tenant && *tenant, has_instance = instance && *instance;
  int length = snprintf(message, sizeof message, "keyring%s%s%s%s%s%s: %s%s%s", *f->server ? " " : "", f->server,
                        has_tenant ? ", tenant " : "", has_tenant ? tenant : "", has_instance ? ", instance " : "",
                        has_instance ? instance : "", name, *f->text ? ": " : "", f->text);
  failure_copy_text(error->message, sizeof error->message, length < 0 ? NULL : message);
  return f->status;
}
