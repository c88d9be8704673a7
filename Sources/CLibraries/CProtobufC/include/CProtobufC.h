// protobuf-c with an allocator that has a budget and wipes what it held.
#ifndef KEYRING_CPROTOBUFC_H
#define KEYRING_CPROTOBUFC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// A bump allocator for unpacked messages: free() is a no-op, reset() wipes and releases.
/// Its first block is kept between messages, so that small messages cost no malloc.
/// `budget` bounds the bytes of one message's objects: protobuf-c turns 1 MiB of hostile
/// input into 68 MiB of objects otherwise. A request past it gets NULL, and unpack fails.
typedef struct keyring_arena keyring_arena;

/// Returns NULL when out of memory. `first_block` is the capacity kept between resets.
keyring_arena *keyring_arena_create(size_t first_block, size_t budget);
/// Wipes every byte handed out since the last reset and frees all but the first block.
void keyring_arena_reset(keyring_arena *arena);
/// Changes the budget for the messages after the next reset.
void keyring_arena_set_budget(keyring_arena *arena, size_t budget);
/// True when an allocation since the last reset was refused for the budget's sake.
bool keyring_arena_exhausted(const keyring_arena *arena);
/// True when malloc failed since the last reset: nothing is known of the message then.
bool keyring_arena_starved(const keyring_arena *arena);
/// Bytes handed out since the last reset, padding included.
size_t keyring_arena_used(const keyring_arena *arena);
/// Wipes and frees everything.
void keyring_arena_destroy(keyring_arena *arena);
/// The allocator to pass to a message's unpack function; owned by the arena.
ProtobufCAllocator *keyring_arena_allocator(keyring_arena *arena);

/// What `keyring_message_check` found.
typedef enum {
  KEYRING_MESSAGE_OK = 0,
  /// A field that its descriptor does not have.
  KEYRING_MESSAGE_UNKNOWN_FIELD,
  /// A string that is not UTF-8.
  KEYRING_MESSAGE_NOT_UTF8,
  /// An enum number without a name.
  KEYRING_MESSAGE_UNKNOWN_ENUM,
} keyring_message_verdict;

/// Walks an unpacked message and those in it, and reports the first thing that protobuf-c lets pass and we do not.
/// The messages' types must not be recursive.
keyring_message_verdict keyring_message_check(const ProtobufCMessage *message);

#endif
