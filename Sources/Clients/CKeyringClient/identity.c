/* SPDX-License-Identifier: MIT */
/* spiffe://<trust-domain>/tenant/<tenant>/instance/<instance>, spiffe://<trust-domain>/tenant/<tenant>/admin,
 * spiffe://<trust-domain>/admin. */
#include "identity.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

/* The next part of a path: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?, up to `/` or the end. */
static const char *take_name(const char *at, char name[64]) {
  size_t length = strcspn(at, "/");
  if (length == 0 || length > 63 || at[0] == '-' || at[length - 1] == '-') return NULL;
  if (strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789-") != length) return NULL;
  memcpy(name, at, length);
  name[length] = 0;
  return at + length;
}

static bool parse(identity *result) {
  static const char scheme[] = "spiffe://", tenant[] = "/tenant/", instance[] = "/instance/";
  if (strncmp(result->uri, scheme, sizeof scheme - 1) != 0) return false;
  const char *at = result->uri + sizeof scheme - 1;
  size_t domain = strcspn(at, "/");
  if (domain == 0) return false;
  at += domain;
  if (strcmp(at, "/admin") == 0) return true;
  if (strncmp(at, tenant, sizeof tenant - 1) != 0) return false;
  at = take_name(at + sizeof tenant - 1, result->tenant);
  if (!at) return false;
  if (strcmp(at, "/admin") == 0) return true;
  if (strncmp(at, instance, sizeof instance - 1) != 0) return false;
  at = take_name(at + sizeof instance - 1, result->instance);
  return at && !*at;
}

bool identity_of(X509 *certificate, identity *result) {
  memset(result, 0, sizeof *result);
  ERR_clear_error();
  GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
  int uris = 0;
  bool fits = true;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    uris++;
    const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
    int length = ASN1_STRING_length(uri);
    const unsigned char *bytes = ASN1_STRING_get0_data(uri);
    if (length <= 0 || (size_t)length >= sizeof result->uri || memchr(bytes, 0, (size_t)length)) {
      fits = false;
      continue;
    }
    memcpy(result->uri, bytes, (size_t)length);
    result->uri[length] = 0;
  }
  GENERAL_NAMES_free(names);
  ERR_clear_error();
  if (uris == 1 && fits && parse(result)) return true;
  memset(result, 0, sizeof *result);
  return false;
}
