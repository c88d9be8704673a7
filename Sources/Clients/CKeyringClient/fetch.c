/* SPDX-License-Identifier: MIT */
/* Calls that read a key, past the cache or through it. */
#include <string.h>

#include "call.h"
#include "names.h"
#include "pool.h"

enum { KEY_BYTES_MOST = 16384 };

/* The key in a reply; `*key` NULL: absent. */
static keyring_status key_of(keyring *k, const Keyring__V1__FetchReply *reply, uint32_t version, keyring_key **key, failure *f) {
  if (!reply->found) return KEYRING_OK;
  if (reply->value.len == 0 || reply->value.len > KEY_BYTES_MOST || !names_fits(reply->type, sizeof((keyring_key *)0)->type) ||
      reply->version == 0 || reply->latest_version < reply->version || (version != 0 && reply->version != version) ||
      (version == 0 && reply->version != reply->latest_version)) {
    return failure_set(f, KEYRING_PROTOCOL, "the server's reply is no key that was asked for");
  }
  *key = key_new(k->memory, reply->value.data, reply->value.len, reply->type, reply->version, reply->latest_version);
  return *key ? KEYRING_OK : failure_set(f, KEYRING_NO_MEMORY, "no more locked memory (RLIMIT_MEMLOCK?)");
}

/* `*is_refused`: a server has said something else than the key. */
static keyring_status fetch_from_server(keyring *k, const keyring_name *name, uint32_t version, bool is_one_round, keyring_key **key,
                                        bool *is_refused, failure *f) {
  Keyring__V1__KeyName message = names_message(name);
  Keyring__V1__FetchRequest request = KEYRING__V1__FETCH_REQUEST__INIT;
  request.name = &message;
  request.version = version;
  call c;
  call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_FETCH, KEYRING__V1__REPLY__RESULT_FETCH);
  c.request.fetch = &request;
  c.is_secret = true;
  c.is_one_round = is_one_round;
  keyring_status status = call_perform(k, &c, f);
  *is_refused = c.is_refused;
  if (status != KEYRING_OK) return status;
  status = key_of(k, c.reply.message->fetch, version, key, f);
  frame_reply_free(&c.reply);
  return status;
}

/* Whether a failure says that no server could be asked, rather than what one answered. So it is also where all connections were taken
 * for the whole time of the call, and by calls that a server keeps waiting: an outage, for who waits for it. */
static bool is_away(keyring_status status) { return status == KEYRING_UNREACHABLE || status == KEYRING_SHUTTING_DOWN; }

/* Whether it is what a server answered, and be it that there is no such key. Refusals of us as a whole have emptied the cache already. */
static bool is_answer(keyring_status status) { return status < 1000 && !is_away(status); }

static keyring_status fetch(keyring *k, const keyring_name *name, uint32_t version, keyring_key **key, failure *f) {
  /* Before the cache, whose answers are copied into memory that a child has to lock first. */
  if (pool_enter(k, f) != KEYRING_OK) return f->status;
  keyring_key *known = NULL;
  cache_answer answer = cache_find(k->cache, name, version, &known);
  if (answer == CACHE_NO_MEMORY) return failure_set(f, KEYRING_NO_MEMORY, "no more locked memory (RLIMIT_MEMLOCK?)");
  if (answer == CACHE_FRESH) {
    *key = known;
    return KEYRING_OK;
  }
  cache_mark mark = cache_begin(k->cache);
  bool is_refused = false;
  keyring_status status = fetch_from_server(k, name, version, known != NULL, key, &is_refused, f);
  if (known && is_away(status) && !is_refused) {
    /* It may have expired, or have been dropped by another thread, meanwhile. */
    keyring_key_free(known);
    known = NULL;
    answer = cache_find(k->cache, name, version, &known);
    if (!known) return status;
    known->is_stale = answer == CACHE_OUTAGE; /* fresh: another call has fetched it meanwhile */
    *key = known;
    return KEYRING_OK;
  }
  keyring_key_free(known);
  if (status == KEYRING_OK && *key) cache_put(k->cache, name, version, *key, mark);
  else if (is_answer(status) || is_refused) cache_drop(k->cache, name);
  return status;
}

keyring_status keyring_fetch(keyring *k, const keyring_name *name, uint32_t version, keyring_key **key, keyring_error *error) {
  failure f = {0};
  if (key) *key = NULL;
  if (!k || !key) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a keyring and a place for the key are needed");
    return keyring_fail(k, &f, error);
  }
  keyring_name meant;
  if (names_check(k, name, &meant, &f) == KEYRING_OK && fetch(k, &meant, version, key, &f) == KEYRING_OK) return KEYRING_OK;
  return keyring_fail(k, &f, error);
}

static void info_of(const keyring_name *name, const keyring_key *key, keyring_info *info) {
  memset(info, 0, sizeof *info);
  info->scope = name->scope;
  if (name->owner_length > 0) memcpy(info->owner, name->owner, name->owner_length);
  info->owner_length = name->owner_length;
  memcpy(info->key_id, name->key_id, name->key_id_length);
  info->key_id_length = name->key_id_length;
  memcpy(info->type, key->type, sizeof info->type);
  info->version = key->version;
  info->latest_version = key->latest_version;
  info->length = (uint32_t)key->length;
}

keyring_status keyring_fetch_into(keyring *k, const keyring_name *name, uint32_t version, void *buffer, size_t capacity, size_t *length,
                                  bool *found, keyring_info *info, keyring_error *error) {
  failure f = {0};
  if (!k || !length || !found || (!buffer && capacity > 0)) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a keyring, a buffer and places for length and `found` are needed");
    return keyring_fail(k, &f, error);
  }
  *length = 0;
  *found = false;
  keyring_name meant;
  keyring_key *key = NULL;
  if (names_check(k, name, &meant, &f) != KEYRING_OK || fetch(k, &meant, version, &key, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  if (!key) return KEYRING_OK;
  *found = true;
  *length = key->length;
  if (key->length <= capacity) memcpy(buffer, key->bytes, key->length);
  else failure_set(&f, KEYRING_BUFFER_TOO_SMALL, "the key has %zu bytes, the buffer %zu", key->length, capacity);
  if (f.status == KEYRING_OK && info) info_of(&meant, key, info);
  keyring_key_free(key);
  return f.status == KEYRING_OK ? KEYRING_OK : keyring_fail(k, &f, error);
}

/* Whether `answer` is about what was asked for. */
static bool is_asked_for(const keyring_info *answer, const keyring_name *name, uint32_t version) {
  return answer->scope == name->scope && answer->owner_length == name->owner_length && answer->key_id_length == name->key_id_length &&
         (name->owner_length == 0 || memcmp(answer->owner, name->owner, name->owner_length) == 0) &&
         memcmp(answer->key_id, name->key_id, name->key_id_length) == 0 &&
         answer->version == (version != 0 ? version : answer->latest_version);
}

keyring_status keyring_describe(keyring *k, const keyring_name *name, uint32_t version, bool *found, keyring_info *info,
                                keyring_error *error) {
  failure f = {0};
  if (!k || !found || !info) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a keyring and places for `found` and the answer are needed");
    return keyring_fail(k, &f, error);
  }
  *found = false;
  keyring_name meant;
  if (names_check(k, name, &meant, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  Keyring__V1__KeyName message = names_message(&meant);
  Keyring__V1__DescribeRequest request = KEYRING__V1__DESCRIBE_REQUEST__INIT;
  request.name = &message;
  request.version = version;
  call c;
  call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_DESCRIBE, KEYRING__V1__REPLY__RESULT_DESCRIBE);
  c.request.describe = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  const Keyring__V1__DescribeReply *reply = c.reply.message->describe;
  keyring_info answer;
  if (reply->found && !(names_info(reply->info, &answer) && is_asked_for(&answer, &meant, version))) {
    failure_set(&f, KEYRING_PROTOCOL, "the server's reply is not what is known of a key");
  } else if (reply->found) {
    *found = true;
    *info = answer;
  }
  frame_reply_free(&c.reply);
  return f.status == KEYRING_OK ? KEYRING_OK : keyring_fail(k, &f, error);
}
