/* SPDX-License-Identifier: MIT */
/* keyring_reader_with_status: whether a key exists is what the server says now. An answer that is not one (no connection, a
 * refusal) is an error, never "absent": InnoDB and the binary log take an absent key for one to be made, and would fork their
 * keys. */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "component.h"

struct my_h_keyring_reader_object_imp {
  struct component_link *link; /* outlives the key */
  keyring_key *key;            /* in locked memory */
};

static mysql_abi_status reader_init(const char *data_id, const char *auth_id, mysql_abi_reader *reader) {
  if (!reader) return 1;
  *reader = NULL;
  /* As in MySQL's own components; libkeyring knows no such key either. */
  if (!data_id || !*data_id) return 0;
  struct component_link *link;
  keyring_key *key;
  if (!component_fetch("fetch", data_id, auth_id, &link, &key)) return 1;
  if (!key) {
    component_link_release(link);
    return 0;
  }
  mysql_abi_reader made = malloc(sizeof *made);
  if (!made) {
    keyring_key_free(key);
    component_link_release(link);
    return 1;
  }
  *made = (struct my_h_keyring_reader_object_imp){link, key};
  *reader = made;
  return 0;
}

static mysql_abi_status reader_deinit(mysql_abi_reader reader) {
  if (!reader) return 0;
  keyring_key_free(reader->key);
  component_link_release(reader->link);
  free(reader);
  return 0;
}

static mysql_abi_status reader_fetch_length(mysql_abi_reader reader, size_t *data_size, size_t *type_size) {
  if (!reader || !data_size || !type_size) return 1;
  *data_size = keyring_key_length(reader->key);
  *type_size = strlen(keyring_key_type(reader->key));
  return 0;
}

static mysql_abi_status reader_fetch(mysql_abi_reader reader, unsigned char *data, size_t data_capacity, size_t *data_size,
                                     char *type, size_t type_capacity, size_t *type_size) {
  if (!reader || !data || !data_size || !type || !type_size) return 1;
  size_t length = keyring_key_length(reader->key);
  const char *key_type = keyring_key_type(reader->key);
  size_t type_length = strlen(key_type);
  if (length > data_capacity || type_length > type_capacity) return 1;
  memcpy(data, keyring_key_bytes(reader->key), length);
  *data_size = length;
  memcpy(type, key_type, type_length);
  /* The server gives exactly the length that fetch_length said; others leave room, and want the NUL. */
  if (type_length < type_capacity) type[type_length] = 0;
  *type_size = type_length;
  return 0;
}

struct mysql_abi_keyring_reader component_reader_service = {reader_init, reader_deinit, reader_fetch_length, reader_fetch};
