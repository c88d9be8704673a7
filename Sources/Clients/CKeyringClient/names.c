/* SPDX-License-Identifier: MIT */
/* Names of keys. */
#include "names.h"

#include <string.h>

enum { OWNER_BYTES_MOST = 512, KEY_ID_BYTES_MOST = 255 };

keyring_scope names_scope(const keyring *k, keyring_scope scope) {
  if (scope == KEYRING_SCOPE_DEFAULT) return k->config.scope;
  return scope == KEYRING_SCOPE_INSTANCE || scope == KEYRING_SCOPE_SHARED ? scope : KEYRING_SCOPE_DEFAULT;
}

keyring_status names_check(const keyring *k, const keyring_name *name, keyring_name *meant, failure *f) {
  if (!name) return failure_set(f, KEYRING_BAD_ARGUMENT, "the name of a key is needed");
  *meant = *name;
  meant->scope = names_scope(k, name->scope);
  if (!name->owner) meant->owner_length = 0;
  if (meant->scope == KEYRING_SCOPE_DEFAULT) return failure_set(f, KEYRING_BAD_ARGUMENT, "no such scope");
  if (!name->key_id || name->key_id_length == 0 || name->key_id_length > KEY_ID_BYTES_MOST)
    return failure_set(f, KEYRING_NAME_INVALID, "a key id has 1 to %d bytes", KEY_ID_BYTES_MOST);
  if (meant->owner_length > OWNER_BYTES_MOST) return failure_set(f, KEYRING_NAME_INVALID, "an owner has at most %d bytes", OWNER_BYTES_MOST);
  return KEYRING_OK;
}

Keyring__V1__KeyName names_message(const keyring_name *name) {
  Keyring__V1__KeyName message = KEYRING__V1__KEY_NAME__INIT;
  message.scope = name->scope == KEYRING_SCOPE_SHARED ? KEYRING__V1__SCOPE__SHARED : KEYRING__V1__SCOPE__INSTANCE;
  /* The messages are not const; they are only encoded. */
  message.owner = (ProtobufCBinaryData){name->owner_length, name->owner_length ? (uint8_t *)(uintptr_t)name->owner : NULL};
  message.key_id = (ProtobufCBinaryData){name->key_id_length, (uint8_t *)(uintptr_t)name->key_id};
  return message;
}

bool names_fits(const char *text, size_t capacity) { return text && strnlen(text, capacity) < capacity; }

bool names_info(const Keyring__V1__KeyInfo *from, keyring_info *info) {
  if (!from || !from->name) return false;
  const Keyring__V1__KeyName *name = from->name;
  if (name->scope != KEYRING__V1__SCOPE__INSTANCE && name->scope != KEYRING__V1__SCOPE__SHARED) return false;
  if (name->owner.len > OWNER_BYTES_MOST || name->key_id.len == 0 || name->key_id.len > KEY_ID_BYTES_MOST) return false;
  if (!names_fits(from->type, sizeof info->type) || from->version == 0 || from->latest_version < from->version || from->length == 0) return false;
  memset(info, 0, sizeof *info);
  info->scope = name->scope == KEYRING__V1__SCOPE__SHARED ? KEYRING_SCOPE_SHARED : KEYRING_SCOPE_INSTANCE;
  if (name->owner.len > 0) memcpy(info->owner, name->owner.data, name->owner.len);
  info->owner_length = name->owner.len;
  memcpy(info->key_id, name->key_id.data, name->key_id.len);
  info->key_id_length = name->key_id.len;
  memcpy(info->type, from->type, strlen(from->type));
  info->version = from->version;
  info->latest_version = from->latest_version;
  info->length = from->length;
  info->created_ms = from->created_ms;
  return true;
}
