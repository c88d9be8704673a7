/* SPDX-License-Identifier: MIT */
/* Keys that nobody has asked for yet. InnoDB asks for a key id when it opens a tablespace, for a version when it reads a page, and takes a
 * question that is not answered for damage: "Table is corrupted. Please drop the table and recreate", until mariadbd is restarted. A pause
 * of keyringd of a second would do. So all that is there is in memory before it is asked for. */
#include <stdio.h>
#include <string.h>

#include "plugin.h"

enum { VERSIONS_MOST = 64 /* of one key, from the newest */, IDS_MOST = 4096 };

static bool is_complete;

keyring_status plugin_preload_versions(unsigned id, unsigned newest, bool (*is_over)(void), keyring_error *error) {
  if (!plugin_settings.preload) return KEYRING_OK;
  for (unsigned version = newest; version > 0 && newest - version < VERSIONS_MOST && !is_over(); version--) {
    struct plugin_entry *entry = plugin_memory_find(id);
    if (entry && plugin_memory_version(entry, version)) continue;
    keyring_status status = plugin_fetch(id, version, error);
    /* Whoever needs this one is told why there is none. */
    if (status != KEYRING_OK && !plugin_is_about_one_key(status)) return status;
  }
  return KEYRING_OK;
}

/* True for `mariadb/5`, as we write it. */
static bool is_ours(const keyring_info *info, unsigned *id) {
  size_t prefix = strlen(plugin_settings.key_prefix);
  unsigned long long number = 0;
  if (info->key_id_length <= prefix || memcmp(info->key_id, plugin_settings.key_prefix, prefix) != 0) return false;
  for (size_t i = prefix; i < info->key_id_length; i++) {
    unsigned char digit = info->key_id[i];
    if (digit < '0' || digit > '9' || number > PLUGIN_VERSION_INVALID) return false;
    number = number * 10 + (digit - '0');
  }
  if (number == 0 || number >= PLUGIN_VERSION_INVALID || info->key_id[prefix] == '0') return false;
  *id = (unsigned)number;
  return true;
}

static keyring_status preload(const keyring_listing *listing, bool (*is_over)(void), keyring_error *error) {
  unsigned ids = 0;
  for (size_t i = 0; i < keyring_listing_count(listing) && ids < IDS_MOST; i++) {
    const keyring_info *info = keyring_listing_entry(listing, i);
    unsigned id;
    if (!is_ours(info, &id)) continue;
    if (is_over()) return KEYRING_OK;
    /* One that is known may have been replaced since: the refresher compares, and then fetches its versions. */
    struct plugin_entry *known = plugin_memory_find(id);
    if (known && plugin_memory_latest(known) != 0 && id != PLUGIN_KEY_ID_SYSTEM) continue;
    ids++;
    keyring_status status = plugin_preload_versions(id, info->latest_version, is_over, error);
    if (status != KEYRING_OK) return status;
  }
  is_complete = !is_over();
  return KEYRING_OK;
}

keyring_status plugin_preload(bool (*is_over)(void), keyring_error *error) {
  if (is_complete || !plugin_settings.preload) return KEYRING_OK;
  keyring_listing *listing = NULL;
  keyring_status status = keyring_list(plugin_keyring, KEYRING_SCOPE_DEFAULT, "", 0, &listing, error);
  if (status != KEYRING_OK) return status;
  status = preload(listing, is_over, error);
  keyring_listing_free(listing);
  return status;
}

void plugin_preload_forget(void) { is_complete = false; }
