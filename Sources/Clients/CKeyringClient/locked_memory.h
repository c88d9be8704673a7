/* SPDX-License-Identifier: MIT */
/* Memory for key material: locked, left out of core dumps, wiped when freed. */
#ifndef KEYRING_LOCKED_MEMORY_H
#define KEYRING_LOCKED_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct locked_memory locked_memory;

/* An arena that takes no more than `most` bytes of the system; NULL: no memory. Nothing is locked before the first allocation. */
locked_memory *locked_memory_new(size_t most, bool allow_unlocked);
/* Wipes and gives back all of it. */
void locked_memory_free(locked_memory *memory);

/* Zeroed bytes, aligned for anything; NULL: over the bound, no memory, or it cannot be locked. Any thread. */
void *locked_memory_take(locked_memory *memory, size_t size);
/* The same, without asking for relief: for who gives it, while it holds its own lock. */
void *locked_memory_take_what_is_there(locked_memory *memory, size_t size);

/* Gives back something that can be done without; false: there is nothing. */
typedef bool (*locked_memory_relief)(void *who);
/* Whom to ask for more before an allocation fails; `relief` NULL: nobody. Not while other threads take memory. */
void locked_memory_relieve(locked_memory *memory, locked_memory_relief relief, void *who);
/* Wipes them. NULL is allowed. */
void locked_memory_give(locked_memory *memory, void *block);

/* In the child of a fork(): locks do not reach it. False where its pages cannot be locked again. */
bool locked_memory_lock_again(locked_memory *memory);

#endif
