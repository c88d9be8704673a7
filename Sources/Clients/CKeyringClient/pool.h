/* SPDX-License-Identifier: MIT */
/* The connections of a keyring: each is used by one call at a time. */
#ifndef KEYRING_POOL_H
#define KEYRING_POOL_H

#include "keyring_internal.h"

/* To be called first in every call: in the child of a fork it lets go of the parent's connections. */
keyring_status pool_enter(keyring *k, failure *f);

/* A connection for one call: one of the pool (`*is_fresh` false), or a new one. On failure (see `f`), none is kept. */
connection *pool_take(keyring *k, int64_t deadline, bool *is_fresh, failure *f);

/* The end of its use: back to the pool, or closed. */
void pool_give(keyring *k, connection *c, bool is_good);

/* This server does not do: the next one is tried first, and its idle connections are closed. Nothing where it is the only one. */
void pool_avoid(keyring *k, size_t server);

void pool_close_idle(keyring *k);

#endif
