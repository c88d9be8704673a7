/* SPDX-License-Identifier: MIT */
/* Who a certificate says that its holder is. */
#ifndef KEYRING_IDENTITY_H
#define KEYRING_IDENTITY_H

#include <openssl/x509.h>
#include <stdbool.h>

typedef struct identity {
  char uri[256];
  char tenant[64];   /* `` for the service's administrator */
  char instance[64]; /* `` for an administrator */
} identity;

/* False: the certificate has not exactly one URI of the forms in docs/WIRE_PROTOCOL.md, or one too long. */
bool identity_of(X509 *certificate, identity *result);

#endif
