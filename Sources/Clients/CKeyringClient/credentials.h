/* SPDX-License-Identifier: MIT */
/* The client's certificate, its key and the CA, as files that are renewed in place, and the SSL_CTX made of them. */
#ifndef KEYRING_CREDENTIALS_H
#define KEYRING_CREDENTIALS_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "config.h"
#include "failure.h"
#include "identity.h"
#include "locked_memory.h"

typedef struct credentials_stamp {
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified, changed;
} credentials_stamp;

typedef struct credentials {
  pthread_mutex_t lock;
  const keyring_config *config;
  locked_memory *memory;
  identity identity; /* of the first certificate; later ones must be of the same */
  SSL_CTX *context;
  credentials_stamp tried[3]; /* of the files in use; zero where the newest did not load */
  char trouble[320];          /* why they were not; `` where they were */
} credentials;

/* Reads the files for the first time. `config` and `memory` are kept. */
keyring_status credentials_init(credentials *c, const keyring_config *config, locked_memory *memory, failure *f);
void credentials_destroy(credentials *c);

/* The SSL_CTX for a new connection, of the files as they are now, or where these do not load of the last good ones: then `trouble` (of
 * sizeof c->trouble) says why, else it is ``. To be freed with SSL_CTX_free. */
SSL_CTX *credentials_take(credentials *c, char *trouble);

/* Whether the files have changed since that SSL_CTX was taken, which still has a reference. */
bool credentials_are_newer(credentials *c, const SSL_CTX *than);

#endif
