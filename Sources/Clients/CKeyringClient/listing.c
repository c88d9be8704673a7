/* SPDX-License-Identifier: MIT */
/* Listings: pages of one snapshot, on one connection; begun again where that breaks. */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "deadline.h"
#include "names.h"
#include "pool.h"

/* Bounds for a server that never comes to an end. */
enum { KEYS_MOST = 4 * 1024 * 1024, TOKEN_BYTES_MOST = 1024, BEGINNINGS_MOST = 5 };

struct keyring_listing {
  size_t count, capacity;
  keyring_info *entries;
};

typedef struct page_token {
  size_t length;
  unsigned char bytes[TOKEN_BYTES_MOST];
} page_token;

static bool reserve(keyring_listing *listing, size_t more) {
  if (more > KEYS_MOST - listing->count) return false;
  if (listing->count + more <= listing->capacity) return true;
  size_t capacity = listing->capacity * 2 > listing->count + more ? listing->capacity * 2 : listing->count + more;
  keyring_info *entries = reallocarray(listing->entries, capacity, sizeof *entries);
  if (!entries) return false;
  listing->entries = entries;
  listing->capacity = capacity;
  return true;
}

static int compare_bytes(const void *a, size_t a_length, const void *b, size_t b_length) {
  size_t shared = a_length < b_length ? a_length : b_length;
  int order = shared > 0 ? memcmp(a, b, shared) : 0;
  return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static bool is_after(const keyring_info *a, const keyring_info *b) {
  int order = compare_bytes(a->owner, a->owner_length, b->owner, b->owner_length);
  return (order != 0 ? order : compare_bytes(a->key_id, a->key_id_length, b->key_id, b->key_id_length)) > 0;
}

/* Whether it is of the scope and, where one was named, of the owner that were asked for. */
static bool is_asked_for(const keyring_info *entry, const Keyring__V1__ListRequest *request) {
  if ((entry->scope == KEYRING_SCOPE_SHARED) != (request->scope == KEYRING__V1__SCOPE__SHARED)) return false;
  return !request->owner || compare_bytes(entry->owner, entry->owner_length, request->owner->owner.data, request->owner->owner.len) == 0;
}

/* Takes a page's keys, which come in their order, each once: so a server cannot go on for ever. */
static keyring_status take_page(keyring_listing *listing, const Keyring__V1__ListRequest *request, const Keyring__V1__ListReply *page,
                                page_token *token, failure *f) {
  if (page->next_page_token.len > sizeof token->bytes || (page->n_keys == 0 && page->next_page_token.len > 0))
    return failure_set(f, KEYRING_PROTOCOL, "the server's reply is no page of a list");
  if (!reserve(listing, page->n_keys)) return failure_set(f, KEYRING_NO_MEMORY, "no memory for so many keys");
  for (size_t i = 0; i < page->n_keys; i++) {
    keyring_info *entry = &listing->entries[listing->count];
    if (!names_info(page->keys[i], entry) || (listing->count > 0 && !is_after(entry, entry - 1)))
      return failure_set(f, KEYRING_PROTOCOL, "the server's list is not in order");
    if (!is_asked_for(entry, request)) return failure_set(f, KEYRING_PROTOCOL, "the server's list is not the one that was asked for");
    listing->count++;
  }
  token->length = page->next_page_token.len;
  if (token->length > 0) memcpy(token->bytes, page->next_page_token.data, token->length);
  return KEYRING_OK;
}

/* All pages, from the first. */
static keyring_status list_once(keyring *k, Keyring__V1__ListRequest *request, int64_t deadline, keyring_listing *listing, failure *f) {
  connection *held = NULL;
  page_token token = {0};
  keyring_status status;
  listing->count = 0;
  do {
    request->page_token = (ProtobufCBinaryData){token.length, token.bytes};
    call c;
    call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_LIST, KEYRING__V1__REPLY__RESULT_LIST);
    c.request.list = request;
    c.held = &held;
    c.deadline = deadline;
    status = call_perform(k, &c, f);
    if (status != KEYRING_OK) break;
    status = take_page(listing, request, c.reply.message->list, &token, f);
    frame_reply_free(&c.reply);
  } while (status == KEYRING_OK && token.length > 0);
  if (held) pool_give(k, held, status == KEYRING_OK);
  return status;
}

static keyring_status list_all(keyring *k, Keyring__V1__ListRequest *request, keyring_listing *listing, failure *f) {
  int64_t deadline = deadline_now() + k->config.timeout_ms;
  for (int i = 1;; i++) {
    keyring_status status = list_once(k, request, deadline, listing, f);
    bool is_worth_it = status == KEYRING_LIST_EXPIRED || status == KEYRING_SHUTTING_DOWN || (status == KEYRING_UNREACHABLE && listing->count > 0);
    if (!is_worth_it || i == BEGINNINGS_MOST || deadline_left(deadline) == 0) return status;
  }
}

keyring_status keyring_list(keyring *k, keyring_scope scope, const void *owner, size_t owner_length, keyring_listing **listing,
                            keyring_error *error) {
  failure f = {0};
  if (listing) *listing = NULL;
  if (!k || !listing || names_scope(k, scope) == KEYRING_SCOPE_DEFAULT) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a keyring, a scope and a place for the list are needed");
    return keyring_fail(k, &f, error);
  }
  if (owner && owner_length > sizeof((keyring_info *)0)->owner) {
    failure_set(&f, KEYRING_NAME_INVALID, "an owner has at most 512 bytes");
    return keyring_fail(k, &f, error);
  }
  Keyring__V1__OwnerFilter filter = KEYRING__V1__OWNER_FILTER__INIT;
  Keyring__V1__ListRequest request = KEYRING__V1__LIST_REQUEST__INIT;
  request.scope = names_scope(k, scope) == KEYRING_SCOPE_SHARED ? KEYRING__V1__SCOPE__SHARED : KEYRING__V1__SCOPE__INSTANCE;
  if (owner) {
    filter.owner = (ProtobufCBinaryData){owner_length, owner_length ? (uint8_t *)(uintptr_t)owner : NULL};
    request.owner = &filter;
  }
  keyring_listing *result = calloc(1, sizeof *result);
  if (!result) failure_set(&f, KEYRING_NO_MEMORY, "no memory");
  if (result && list_all(k, &request, result, &f) == KEYRING_OK) {
    *listing = result;
    return KEYRING_OK;
  }
  keyring_listing_free(result);
  return keyring_fail(k, &f, error);
}

size_t keyring_listing_count(const keyring_listing *listing) { return listing->count; }

const keyring_info *keyring_listing_entry(const keyring_listing *listing, size_t index) {
  return index < listing->count ? &listing->entries[index] : NULL;
}

void keyring_listing_free(keyring_listing *listing) {
  if (!listing) return;
  free(listing->entries);
  free(listing);
}
