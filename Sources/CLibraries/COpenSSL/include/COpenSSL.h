// OpenSSL 3 as the modules SecureMemory, Cryptography and TLSTransport see it.
// Macros that Swift cannot import become static inline functions here.
#ifndef KEYRING_COPENSSL_H
#define KEYRING_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/// Makes every later OPENSSL_free wipe what it frees, whole allocation, so that record
/// buffers and key schedules leave nothing behind. Returns 1, or 0 where OpenSSL has
/// allocated before (CRYPTO_set_mem_functions(3) then refuses).
int keyring_openssl_install_wiping_allocator(void);

/// EVP_CipherInit_ex2 of a fresh context, with the key schedule, which begins with the key itself, in locked memory where the
/// wiping allocator is installed and there is an arena. Returns 1, or 0, for want of locked memory for one.
int keyring_EVP_CipherInit_locked(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key, int is_encrypting);

static inline long keyring_SSL_CTX_set_min_proto_version(SSL_CTX *context, int version) {
  return SSL_CTX_set_min_proto_version(context, version);
}
static inline long keyring_SSL_CTX_set_max_proto_version(SSL_CTX *context, int version) {
  return SSL_CTX_set_max_proto_version(context, version);
}
static inline long keyring_SSL_CTX_set1_groups_list(SSL_CTX *context, const char *groups) {
  return SSL_CTX_set1_groups_list(context, groups);
}
static inline long keyring_SSL_CTX_set_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_mode(context, mode);
}
static inline long keyring_SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_session_cache_mode(context, mode);
}
static inline long keyring_BIO_set_mem_eof_return(BIO *bio, int value) {
  return BIO_set_mem_eof_return(bio, value);
}
static inline long keyring_SSL_set_tlsext_host_name(SSL *ssl, const char *name) {
  return SSL_set_tlsext_host_name(ssl, name);
}

/// Empties this thread's error queue; looks first, since emptying visits every slot.
static inline void keyring_clear_errors(void) {
  if (ERR_peek_error() != 0) {
    ERR_clear_error();
  }
}

static inline int keyring_SSL_set_app_data(SSL *ssl, void *data) { return SSL_set_app_data(ssl, data); }
/// What SSL_set_app_data set on the connection whose peer's certificate is being verified.
static inline void *keyring_X509_STORE_CTX_app_data(X509_STORE_CTX *store) {
  SSL *ssl = (SSL *)X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  return ssl == NULL ? NULL : SSL_get_app_data(ssl);
}

/// Has a store check certificates against its revocation lists: the leaf in any case, those above it where their CA's list is there.
/// Answers 1 on success.
int keyring_X509_STORE_check_revocation(X509_STORE *store);
static inline unsigned long keyring_X509_V_FLAG_NO_CHECK_TIME(void) { return X509_V_FLAG_NO_CHECK_TIME; }

static inline uint64_t keyring_SSL_OP_NO_TICKET(void) { return SSL_OP_NO_TICKET; }
static inline uint64_t keyring_SSL_OP_NO_RENEGOTIATION(void) { return SSL_OP_NO_RENEGOTIATION; }
static inline uint64_t keyring_SSL_OP_NO_COMPRESSION(void) { return SSL_OP_NO_COMPRESSION; }
static inline long keyring_SSL_CTX_add0_chain_cert(SSL_CTX *context, X509 *certificate) {
  return SSL_CTX_add0_chain_cert(context, certificate);
}
static inline void keyring_GENERAL_NAMES_free(void *names) { GENERAL_NAMES_free((GENERAL_NAMES *)names); }
static inline int keyring_GENERAL_NAMES_count(void *names) { return sk_GENERAL_NAME_num((GENERAL_NAMES *)names); }
/// The bytes of the URI at `index`, or NULL where another kind of name stands there.
static inline const unsigned char *keyring_GENERAL_NAMES_uri(void *names, int index, int *count) {
  GENERAL_NAME *name = sk_GENERAL_NAME_value((GENERAL_NAMES *)names, index);
  if (name->type != GEN_URI) {
    return NULL;
  }
  *count = ASN1_STRING_length(name->d.uniformResourceIdentifier);
  return ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
}

static inline EVP_PKEY *keyring_EVP_EC_gen(const char *curve) { return EVP_EC_gen(curve); }
static inline long keyring_BIO_get_mem_data(BIO *bio, char **data) { return BIO_get_mem_data(bio, data); }
static inline void keyring_X509V3_set_ctx_nodb(X509V3_CTX *context) { X509V3_set_ctx_nodb(context); }

// OSSL_PARAM arrays point at what they name, so that they are made and used in one place. Each answers 1 on success.

static inline int keyring_HMAC_init_sha256(EVP_MAC_CTX *context, const unsigned char *key, size_t key_bytes) {
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  return EVP_MAC_init(context, key, key_bytes, parameters);
}

static inline int keyring_HKDF_sha256(EVP_KDF *hkdf, const void *key, size_t key_bytes, const void *salt, size_t salt_bytes,
                                      const void *info, size_t info_bytes, unsigned char *out, size_t out_bytes) {
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, key_bytes),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_bytes),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_bytes),
      OSSL_PARAM_construct_end(),
  };
  EVP_KDF_CTX *context = EVP_KDF_CTX_new(hkdf);
  int ok = context != NULL && EVP_KDF_derive(context, out, out_bytes, parameters) == 1;
  EVP_KDF_CTX_free(context);
  return ok;
}

static inline int keyring_scrypt(EVP_KDF *scrypt, const void *passphrase, size_t passphrase_bytes, const void *salt,
                                 size_t salt_bytes, uint64_t n, uint64_t r, uint64_t p, unsigned char *out, size_t out_bytes) {
  uint64_t memory_max = 256 * n * r;
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)passphrase, passphrase_bytes),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_bytes),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_R, &r),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_P, &p),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory_max),
      OSSL_PARAM_construct_end(),
  };
  EVP_KDF_CTX *context = EVP_KDF_CTX_new(scrypt);
  int ok = context != NULL && EVP_KDF_derive(context, out, out_bytes, parameters) == 1;
  EVP_KDF_CTX_free(context);
  return ok;
}

#endif
