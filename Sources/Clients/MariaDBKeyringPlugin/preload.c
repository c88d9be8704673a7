/* SPDX-License-Identifier: MIT */
/* Keys that nobody has asked for yet. InnoDB asks for a key id when it opens a tablespace, for a version when it reads a page, and takes a
 * question that is not answered for damage: "Table is corrupted. Please drop the table and recreate", until mariadbd is restarted. A pause
 * of keyringd of a second would do. So all that is there is in memory before it is asked for. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "plugin.h"

enum {
  VERSIONS_MOST = 64, /* of one key, from the newest */
  IDS_MOST = 4096,
  KEYS_MOST = 16384, /* a quarter of the memory that libkeyring locks at most */
  KEY_BYTES = 512    /* of locked memory, with what is around it: not less */
};

static bool is_complete;
static unsigned long long fetched;

/* Half of the memory that may be locked is left to calls, without which no key could be fetched or refreshed. */
static bool is_room(void) {
  struct rlimit limit;
  if (fetched >= KEYS_MOST) return false;
  return getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || fetched < limit.rlim_cur / 2 / KEY_BYTES;
}

/* Whether a failure is of this key alone, so that the next one may do: whoever needs this one is told why there is none. */
static bool is_passed_over(keyring_status status) { return status != KEYRING_NO_MEMORY && plugin_is_about_one_key(status); }

static keyring_status fetch(unsigned id, unsigned version, keyring_error *error) {
  keyring_status status = plugin_fetch(id, version, error);
  if (status == KEYRING_OK) fetched++;
  return is_passed_over(status) ? KEYRING_OK : status;
}

keyring_status plugin_preload_versions(unsigned id, unsigned newest, bool (*is_over)(void), keyring_error *error) {
  if (!plugin_settings.preload) return KEYRING_OK;
  for (unsigned version = newest; version > 0 && newest - version < VERSIONS_MOST && !is_over() && is_room(); version--) {
    struct plugin_entry *entry = plugin_memory_find(id);
    if (entry && plugin_memory_version(entry, version)) continue;
    keyring_status status = fetch(id, version, error);
    if (status != KEYRING_OK) return status;
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

/* The newest versions of all keys before the old ones of any: as the server has them now, which may be newer than in the list. */
static keyring_status preload(const keyring_listing *listing, bool is_newest, bool (*is_over)(void), keyring_error *error) {
  unsigned ids = 0;
  for (size_t i = 0; i < keyring_listing_count(listing) && ids < IDS_MOST && is_room(); i++) {
    unsigned id;
    if (!is_ours(keyring_listing_entry(listing, i), &id)) continue;
    if (is_over()) return KEYRING_OK;
    ids++;
    struct plugin_entry *known = plugin_memory_find(id);
    unsigned latest = known ? plugin_memory_latest(known) : 0;
    keyring_status status = KEYRING_OK;
    /* One that is known may have been replaced since: the refresher compares. */
    if (is_newest && latest == 0) status = fetch(id, 0, error);
    else if (!is_newest && latest != 0) status = plugin_preload_versions(id, latest, is_over, error);
    if (status != KEYRING_OK) return status;
  }
  return KEYRING_OK;
}

keyring_status plugin_preload(bool (*is_over)(void), keyring_error *error) {
  if (is_complete || !plugin_settings.preload) return KEYRING_OK;
  keyring_listing *listing = NULL;
  keyring_status status = keyring_list(plugin_keyring, KEYRING_SCOPE_DEFAULT, "", 0, &listing, error);
  if (status != KEYRING_OK) return status;
  status = preload(listing, true, is_over, error);
  if (status == KEYRING_OK) status = preload(listing, false, is_over, error);
  if (status == KEYRING_OK) is_complete = !is_over();
  if (is_complete && !is_room())
    plugin_log(PLUGIN_WARNING, "no room in locked memory (RLIMIT_MEMLOCK) for all keys: %llu are in it, the others are fetched when asked for",
               fetched);
  keyring_listing_free(listing);
  return status;
}

void plugin_preload_forget(void) {
  is_complete = false;
  fetched = 0;
}
