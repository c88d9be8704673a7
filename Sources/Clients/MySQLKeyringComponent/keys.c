/* SPDX-License-Identifier: MIT */
/* keyring_keys_metadata_iterator: a snapshot of the names of the configured scope. */
#include <stdlib.h>
#include <string.h>

#include "component.h"

struct my_h_keyring_keys_metadata_iterator_imp {
  struct component_link *link; /* outlives the listing */
  keyring_listing *listing;
  size_t index;
};

/* A name with a NUL inside (of a client that is not MySQL, in the shared scope) cannot be said in a C string: cut there, it
 * would be the name of another key. */
static bool can_be_said(const keyring_info *info) {
  return !memchr(info->key_id, 0, info->key_id_length) && !memchr(info->owner, 0, info->owner_length);
}

static const keyring_info *entry(const struct my_h_keyring_keys_metadata_iterator_imp *iterator) {
  return iterator ? keyring_listing_entry(iterator->listing, iterator->index) : NULL;
}

static void skip_unsayable(mysql_abi_keys_iterator iterator) {
  const keyring_info *info;
  while ((info = entry(iterator)) && !can_be_said(info)) iterator->index++;
}

static mysql_abi_status keys_init(mysql_abi_keys_iterator *iterator) {
  if (!iterator) return 1;
  *iterator = NULL;
  struct component_link *link = component_link_acquire("list");
  if (!link) return 1;
  mysql_abi_keys_iterator made = calloc(1, sizeof *made);
  keyring_error error = {.status = KEYRING_NO_MEMORY, .message = "no memory"};
  if (!made || keyring_list(link->keyring, KEYRING_SCOPE_DEFAULT, NULL, 0, &made->listing, &error) != KEYRING_OK) {
    component_failed(link, "list", NULL, NULL, &error);
    free(made);
    component_link_release(link);
    return 1;
  }
  component_answered(link);
  made->link = link;
  skip_unsayable(made);
  *iterator = made;
  return 0;
}

static mysql_abi_status keys_deinit(mysql_abi_keys_iterator iterator) {
  if (!iterator) return 0;
  keyring_listing_free(iterator->listing);
  component_link_release(iterator->link);
  free(iterator);
  return 0;
}

static mysql_abi_status keys_is_valid(mysql_abi_keys_iterator iterator) { return entry(iterator) != NULL; }

static mysql_abi_status keys_next(mysql_abi_keys_iterator iterator) {
  if (!entry(iterator)) return 1;
  iterator->index++;
  skip_unsayable(iterator);
  return entry(iterator) ? 0 : 1;
}

static mysql_abi_status keys_get_length(mysql_abi_keys_iterator iterator, size_t *data_id_length, size_t *auth_id_length) {
  const keyring_info *info = entry(iterator);
  if (!info || !data_id_length || !auth_id_length) return 1;
  /* With the NUL: a caller that gives exactly so much gets the whole name. */
  *data_id_length = info->key_id_length + 1;
  *auth_id_length = info->owner_length + 1;
  return 0;
}

/* performance_schema.keyring_keys shows so much of a name as its fixed buffer holds. */
static void copy_cut(char *buffer, size_t size, const unsigned char *text, size_t length) {
  if (length >= size) length = size - 1;
  memcpy(buffer, text, length);
  buffer[length] = 0;
}

static mysql_abi_status keys_get(mysql_abi_keys_iterator iterator, char *data_id, size_t data_id_size, char *auth_id,
                                 size_t auth_id_size) {
  const keyring_info *info = entry(iterator);
  if (!info || !data_id || !auth_id || data_id_size == 0 || auth_id_size == 0) return 1;
  copy_cut(data_id, data_id_size, info->key_id, info->key_id_length);
  copy_cut(auth_id, auth_id_size, info->owner, info->owner_length);
  return 0;
}

struct mysql_abi_keyring_keys component_keys_service = {
    keys_init, keys_deinit, keys_is_valid, keys_next, keys_get_length, keys_get};
