/* SPDX-License-Identifier: MIT */
/* Calls that change a key. */
#include <string.h>

#include "call.h"
#include "names.h"

enum { KEY_BYTES_MOST = 16384, TYPE_BYTES_MOST = 127 };

static keyring_status check(const keyring *k, const keyring_name *name, keyring_name *meant, failure *f) {
  if (!k) return failure_set(f, KEYRING_BAD_ARGUMENT, "a keyring is needed");
  return names_check(k, name, meant, f);
}

static keyring_status check_material(const char *type, size_t length, failure *f) {
  if (!type) return failure_set(f, KEYRING_BAD_ARGUMENT, "a type is needed");
  size_t type_length = strnlen(type, TYPE_BYTES_MOST + 1);
  if (type_length == 0 || type_length > TYPE_BYTES_MOST) return failure_set(f, KEYRING_TYPE_INVALID, "a type has 1 to %d bytes", TYPE_BYTES_MOST);
  if (length == 0 || length > KEY_BYTES_MOST) return failure_set(f, KEYRING_LENGTH_INVALID, "a key has 1 to %d bytes", KEY_BYTES_MOST);
  return KEYRING_OK;
}

/* Whatever comes of it, what the cache has of this name is from before it. */
static keyring_status perform(keyring *k, call *c, const keyring_name *name, failure *f) {
  cache_drop(k->cache, name);
  keyring_status status = call_perform(k, c, f);
  cache_drop(k->cache, name);
  return status;
}

keyring_status keyring_store(keyring *k, const keyring_name *name, const char *type, const void *bytes, size_t length,
                             keyring_error *error) {
  failure f = {0};
  keyring_name meant;
  if (check(k, name, &meant, &f) != KEYRING_OK || check_material(type, length, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (!bytes) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "the bytes of the key are needed");
    return keyring_fail(k, &f, error);
  }
  Keyring__V1__KeyName message = names_message(&meant);
  Keyring__V1__StoreRequest request = KEYRING__V1__STORE_REQUEST__INIT;
  request.name = &message;
  /* The messages are not const; they are only encoded, and that into locked memory. */
  request.type = (char *)(uintptr_t)type;
  request.value = (ProtobufCBinaryData){length, (uint8_t *)(uintptr_t)bytes};
  call c;
  call_init(&c, CALL_CHANGE, KEYRING__V1__REQUEST__CALL_STORE, KEYRING__V1__REPLY__RESULT_STORE);
  c.request.store = &request;
  if (perform(k, &c, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  frame_reply_free(&c.reply);
  return KEYRING_OK;
}

keyring_status keyring_generate(keyring *k, const keyring_name *name, const char *type, size_t length, keyring_error *error) {
  failure f = {0};
  keyring_name meant;
  if (check(k, name, &meant, &f) != KEYRING_OK || check_material(type, length, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  Keyring__V1__KeyName message = names_message(&meant);
  Keyring__V1__GenerateRequest request = KEYRING__V1__GENERATE_REQUEST__INIT;
  request.name = &message;
  request.type = (char *)(uintptr_t)type;
  request.length = (uint32_t)length;
  call c;
  call_init(&c, CALL_CHANGE, KEYRING__V1__REQUEST__CALL_GENERATE, KEYRING__V1__REPLY__RESULT_GENERATE);
  c.request.generate = &request;
  if (perform(k, &c, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  frame_reply_free(&c.reply);
  return KEYRING_OK;
}

keyring_status keyring_rotate(keyring *k, const keyring_name *name, uint32_t *version, keyring_error *error) {
  failure f = {0};
  keyring_name meant;
  if (check(k, name, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  Keyring__V1__KeyName message = names_message(&meant);
  Keyring__V1__RotateRequest request = KEYRING__V1__ROTATE_REQUEST__INIT;
  request.name = &message;
  call c;
  call_init(&c, CALL_CHANGE, KEYRING__V1__REQUEST__CALL_ROTATE, KEYRING__V1__REPLY__RESULT_ROTATE);
  c.request.rotate = &request;
  if (perform(k, &c, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  uint32_t made = c.reply.message->rotate->version;
  frame_reply_free(&c.reply);
  /* 0 would be taken for "the newest" by a later fetch, and 1 is there before any rotation. */
  if (made < 2) {
    failure_set(&f, KEYRING_OUTCOME_UNKNOWN, "the server says that the rotation made version %u", made);
    return keyring_fail(k, &f, error);
  }
  if (version) *version = made;
  return KEYRING_OK;
}

keyring_status keyring_remove(keyring *k, const keyring_name *name, keyring_error *error) {
  failure f = {0};
  keyring_name meant;
  if (check(k, name, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  Keyring__V1__KeyName message = names_message(&meant);
  Keyring__V1__RemoveRequest request = KEYRING__V1__REMOVE_REQUEST__INIT;
  request.name = &message;
  call c;
  call_init(&c, CALL_CHANGE, KEYRING__V1__REQUEST__CALL_REMOVE, KEYRING__V1__REPLY__RESULT_REMOVE);
  c.request.remove = &request;
  if (perform(k, &c, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  frame_reply_free(&c.reply);
  return KEYRING_OK;
}
