/* SPDX-License-Identifier: MIT */
/* Names of keys and what is known of keys, between the caller's structs and the messages. */
#ifndef KEYRING_NAMES_H
#define KEYRING_NAMES_H

#include "keyring/v1/keyring.pb-c.h"
#include "keyring_internal.h"

/* The scope that is meant. KEYRING_SCOPE_DEFAULT: it is none. */
keyring_scope names_scope(const keyring *k, keyring_scope scope);

/* Checks a name and says which scope is meant: `meant` has the pointers of `name`. */
keyring_status names_check(const keyring *k, const keyring_name *name, keyring_name *meant, failure *f);

/* The message of a checked name; it points at the name's bytes. */
Keyring__V1__KeyName names_message(const keyring_name *name);

/* False: it is not what a server may say. */
bool names_info(const Keyring__V1__KeyInfo *from, keyring_info *info);

/* Whether a string of the peer fits, with its NUL. */
bool names_fits(const char *text, size_t capacity);

#endif
