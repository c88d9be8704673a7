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

void failure_copy_text(char *to, size_t capacity, const char *from) {
  size_t length = 0;
  for (; from && *from && length + 1 < capacity; from++) {
    unsigned char c = (unsigned char)*from;
    to[length++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
  }
  /* Not in the middle of a character of UTF-8. */
  if (from && *from) {
    while (length > 0 && ((unsigned char)to[length - 1] & 0xc0) == 0x80) length--;
    if (length > 0 && (unsigned char)to[length - 1] >= 0xc0) length--;
  }
  to[length] = 0;
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
  f->is_own = false;
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
  bool has_tenant = tenant && *tenant, has_instance = instance && *instance;
  int length = snprintf(error->message, sizeof error->message, "keyring%s%s%s%s%s%s: %s%s%s", *f->server ? " " : "", f->server,
                        has_tenant ? ", tenant " : "", has_tenant ? tenant : "", has_instance ? ", instance " : "",
                        has_instance ? instance : "", name, *f->text ? ": " : "", f->text);
  if (length < 0) error->message[0] = 0;
  return f->status;
}
