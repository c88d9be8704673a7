/* SPDX-License-Identifier: MIT */
/* Frames: a byte of flags, four bytes of length, a message. Nothing that the peer says of a length is used before it is judged. */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#include "deadline.h"

enum {
  PREFIX_BYTES = 5,
  REPLY_BYTES_MOST = 64 * 1024,
  ADMINISTRATOR_REPLY_BYTES_MOST = 4 * 1024 * 1024,
  /* What a reply may unpack to: an allocation is rounded up, and a field of two bytes may become a message in memory. */
  SECRET_BYTES_MOST = 256 * 1024,
  OBJECT_BYTES_MOST = 32 * 1024 * 1024
};

static void *allocate(void *data, size_t size) {
  frame_memory *memory = data;
  if (size > memory->left) return NULL;
  memory->left -= size;
  void *block = memory->locked ? locked_memory_take(memory->locked, size) : malloc(size ? size : 1);
  if (!block) memory->is_exhausted = true;
  return block;
}

static void release(void *data, void *pointer) {
  frame_memory *memory = data;
  if (memory->locked) locked_memory_give(memory->locked, pointer);
  else free(pointer);
}

static ProtobufCAllocator *allocator_of(frame_memory *memory) {
  memory->allocator = (ProtobufCAllocator){.alloc = allocate, .free = release, .allocator_data = memory};
  return &memory->allocator;
}

void frame_reply_free(frame_reply *reply) {
  if (reply->message) keyring__v1__reply__free_unpacked(reply->message, allocator_of(&reply->memory));
  reply->message = NULL;
}

/* The server is told a little less than is left, so that its answer is here in time. */
static uint32_t timeout_for_server(int64_t deadline) {
  int left = deadline_left(deadline);
  int less = left / 10 < 250 ? left / 10 : 250;
  return left - less > 0 ? (uint32_t)(left - less) : 1;
}

static frame_outcome send_request(keyring *k, connection *c, Keyring__V1__Request *request, int64_t deadline, failure *f) {
  request->id = ++c->last_id;
  request->timeout_ms = timeout_for_server(deadline);
  size_t length = keyring__v1__request__get_packed_size(request);
  unsigned char *frame = locked_memory_take(k->memory, PREFIX_BYTES + length);
  if (!frame) {
    failure_set(f, KEYRING_NO_MEMORY, "no more locked memory (RLIMIT_MEMLOCK?)");
    return FRAME_NOT_SENT;
  }
  frame[0] = 0;
  for (int i = 0; i < 4; i++) frame[1 + i] = (unsigned char)(length >> (24 - 8 * i));
  (void)keyring__v1__request__pack(request, frame + PREFIX_BYTES);
  tls_outcome outcome = tls_write(&c->tls, frame, PREFIX_BYTES + length, deadline, f);
  locked_memory_give(k->memory, frame);
  /* A write that failed may have left. */
  return outcome == TLS_DONE ? FRAME_ANSWERED : outcome == TLS_REFUSED ? FRAME_BROKEN : FRAME_LOST;
}

static frame_outcome broken(failure *f, const char *text) {
  failure_set(f, KEYRING_PROTOCOL, "%s", text);
  return FRAME_BROKEN;
}

static frame_outcome read_message(keyring *k, connection *c, bool is_secret, int64_t deadline, frame_reply *reply, failure *f) {
  bool is_instance = k->credentials.identity.instance[0] != 0;
  unsigned char prefix[PREFIX_BYTES];
  tls_outcome outcome = tls_read(&c->tls, prefix, sizeof prefix, deadline, f);
  if (outcome != TLS_DONE) return outcome == TLS_REFUSED ? FRAME_BROKEN : FRAME_LOST;
  uint32_t length = (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | prefix[4];
  if (prefix[0] != 0) return broken(f, "a frame of the server has flags");
  if (length == 0 || length > (is_instance ? REPLY_BYTES_MOST : ADMINISTRATOR_REPLY_BYTES_MOST)) return broken(f, "a frame of the server is empty or too long");
  frame_memory raw = {.locked = is_instance ? k->memory : NULL, .left = length};
  unsigned char *bytes = allocate(&raw, length);
  if (!bytes) {
    failure_set(f, KEYRING_NO_MEMORY, "no more memory for a reply (RLIMIT_MEMLOCK?)");
    return FRAME_LOST;
  }
  frame_outcome result = FRAME_ANSWERED;
  outcome = tls_read(&c->tls, bytes, length, deadline, f);
  if (outcome != TLS_DONE) {
    result = outcome == TLS_REFUSED ? FRAME_BROKEN : FRAME_LOST;
  } else {
    reply->memory = (frame_memory){.locked = is_secret ? k->memory : NULL, .left = is_secret ? SECRET_BYTES_MOST : OBJECT_BYTES_MOST};
    reply->message = keyring__v1__reply__unpack(allocator_of(&reply->memory), length, bytes);
    if (!reply->message && reply->memory.is_exhausted) {
      failure_set(f, KEYRING_NO_MEMORY, "no more memory for a reply (RLIMIT_MEMLOCK?)");
      result = FRAME_LOST;
    } else if (!reply->message) {
      result = broken(f, "a frame of the server is no reply");
    }
  }
  release(&raw, bytes);
  return result;
}

/* The status in a reply as a failure. */
static void explain_status(const Keyring__V1__Status *status, failure *f) {
  keyring_status reason = status->reason > 0 && (int)status->reason < 1000 ? (keyring_status)status->reason : KEYRING_INTERNAL_ERROR;
  failure_set(f, reason, "%s", status->message ? status->message : "");
  f->retry_after_ms = status->retry_after_ms;
}

frame_outcome frame_exchange(keyring *k, connection *c, Keyring__V1__Request *request, Keyring__V1__Reply__ResultCase expected,
                             bool is_secret, int64_t deadline, frame_reply *reply, failure *f) {
  reply->message = NULL;
  frame_outcome outcome = send_request(k, c, request, deadline, f);
  /* A server that ends a connection says why before: what it said is read also where the request could not be written any more. */
  if (outcome == FRAME_NOT_SENT) return outcome;
  failure of_write = *f;
  bool is_written = outcome == FRAME_ANSWERED;
  if (!is_written && c->tls.is_broken) return outcome;
  outcome = read_message(k, c, is_secret, deadline, reply, f);
  if (!is_written && outcome == FRAME_LOST) *f = of_write;
  if (outcome != FRAME_ANSWERED) return outcome;
  const Keyring__V1__Reply *message = reply->message;
  bool has_status = message->status && message->status->code != KEYRING__V1__CODE__OK;
  bool has_result = message->result_case != KEYRING__V1__REPLY__RESULT__NOT_SET;
  if (has_status && !has_result && (message->id == 0 || message->id == request->id)) {
    explain_status(message->status, f);
    outcome = message->id == 0 ? FRAME_CONNECTION : FRAME_ANSWERED;
  } else if (has_status || message->id != request->id || message->result_case != expected || !message->fetch) {
    outcome = broken(f, "the server's reply is not one to this call");
  } else {
    f->status = KEYRING_OK;
    return FRAME_ANSWERED;
  }
  frame_reply_free(reply);
  return outcome;
}
