/* SPDX-License-Identifier: MIT */
/* keyring_aes: AES-256 with a key of the keyring, as MySQL's own components do it, so that what they encrypted (persisted
 * sensitive variables) can be decrypted after a migration: the cipher's key is the SHA-256 of the stored bytes, whatever their
 * length. */
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "component.h"

enum { KEY_BITS = 256, KEY_BYTES = KEY_BITS / 8, INPUT_MAX = INT_MAX - EVP_MAX_BLOCK_LENGTH };

/* One call's arguments. */
struct job {
  const char *operation;
  const char *data_id;
  const char *auth_id;
  const EVP_CIPHER *cipher;
  const unsigned char *iv;
  int padding;
  int encrypt;
  const unsigned char *data;
  size_t data_size;
  unsigned char *out;
  size_t out_capacity;
};

static const EVP_CIPHER *find_cipher(const char *mode, size_t block_size) {
  if (!mode || block_size != KEY_BITS) return NULL;
  if (strcasecmp(mode, "cbc") == 0) return EVP_aes_256_cbc();
  if (strcasecmp(mode, "ecb") == 0) return EVP_aes_256_ecb();
  if (strcasecmp(mode, "cfb1") == 0) return EVP_aes_256_cfb1();
  if (strcasecmp(mode, "cfb8") == 0) return EVP_aes_256_cfb8();
  if (strcasecmp(mode, "cfb128") == 0) return EVP_aes_256_cfb128();
  if (strcasecmp(mode, "ofb") == 0) return EVP_aes_256_ofb();
  return NULL;
}

/* Of the output with padding; MySQL asks for so much without it, too. */
static size_t size_with_padding(const EVP_CIPHER *cipher, size_t input) {
  size_t block = (size_t)EVP_CIPHER_get_block_size(cipher);
  return block > 1 ? block * (input / block) + block : input;
}

static mysql_abi_status get_size(size_t input_length, const char *mode, size_t block_size, size_t *out_size) {
  const EVP_CIPHER *cipher = find_cipher(mode, block_size);
  if (!cipher || !out_size || input_length > INPUT_MAX) return 1;
  *out_size = size_with_padding(cipher, input_length);
  return 0;
}

/* The cipher's key. */
static bool derive(const keyring_key *key, unsigned char derived[KEY_BYTES]) {
  unsigned length = 0;
  return EVP_Digest(keyring_key_bytes(key), keyring_key_length(key), derived, &length, EVP_sha256(), NULL) == 1 &&
         length == KEY_BYTES;
}

static bool run(const struct job *job, const unsigned char derived[KEY_BYTES], size_t *out_size) {
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  int first = 0, last = 0;
  bool good = context && EVP_CipherInit_ex(context, job->cipher, NULL, derived, job->iv, job->encrypt) == 1 &&
              EVP_CIPHER_CTX_set_padding(context, job->padding) == 1 &&
              EVP_CipherUpdate(context, job->out, &first, job->data, (int)job->data_size) == 1 &&
              EVP_CipherFinal_ex(context, job->out + first, &last) == 1;
  EVP_CIPHER_CTX_free(context); /* wipes it */
  if (good) *out_size = (size_t)first + (size_t)last;
  return good;
}

static void failed(const struct component_link *link, const struct job *job, const char *what) {
  keyring_error error = {.status = KEYRING_BAD_ARGUMENT};
  snprintf(error.message, sizeof error.message, "keyring %.255s, tenant %s, instance %s: %s: %s", link->configuration.servers,
           keyring_tenant(link->keyring), keyring_instance(link->keyring), keyring_status_name(error.status), what);
  component_failed(link, job->operation, job->data_id, job->auth_id, &error);
}

static bool with_key(const struct component_link *link, const struct job *job, const keyring_key *key, size_t *out_size) {
  if (!key) {
    failed(link, job, "there is no such key");
    return false;
  }
  if (strcasecmp(keyring_key_type(key), "AES") != 0) {
    failed(link, job, "the key is not of type AES");
    return false;
  }
  unsigned char derived[KEY_BYTES];
  /* mysqld's own use of OpenSSL on this thread must not find an old error of ours, nor we one of it. */
  ERR_clear_error();
  bool good = derive(key, derived) && run(job, derived, out_size);
  OPENSSL_cleanse(derived, sizeof derived);
  ERR_clear_error();
  if (!good) {
    failed(link, job, job->encrypt ? "cannot be encrypted so" : "cannot be decrypted so: another key, mode, padding or vector");
  }
  return good;
}

static mysql_abi_status perform(const struct job *job, size_t *out_size) {
  if (!job->data_id || !*job->data_id || !job->cipher || !job->data || !job->out || !out_size) return 1;
  if (EVP_CIPHER_get_iv_length(job->cipher) > 0 && !job->iv) return 1;
  if (job->data_size > INPUT_MAX) return 1;
  size_t needed = job->encrypt ? size_with_padding(job->cipher, job->data_size) : job->data_size;
  if (needed > job->out_capacity) return 1;
  struct component_link *link;
  keyring_key *key;
  if (!component_fetch(job->operation, job->data_id, job->auth_id, &link, &key)) return 1;
  bool good = with_key(link, job, key, out_size);
  keyring_key_free(key);
  component_link_release(link);
  return good ? 0 : 1;
}

static mysql_abi_status encrypt(const char *data_id, const char *auth_id, const char *mode, size_t block_size,
                                const unsigned char *iv, int padding, const unsigned char *data, size_t data_size,
                                unsigned char *out, size_t out_capacity, size_t *out_size) {
  struct job job = {"encrypt", data_id, auth_id, find_cipher(mode, block_size), iv, padding, 1,
                    data, data_size, out, out_capacity};
  return perform(&job, out_size);
}

static mysql_abi_status decrypt(const char *data_id, const char *auth_id, const char *mode, size_t block_size,
                                const unsigned char *iv, int padding, const unsigned char *data, size_t data_size,
                                unsigned char *out, size_t out_capacity, size_t *out_size) {
  struct job job = {"decrypt", data_id, auth_id, find_cipher(mode, block_size), iv, padding, 0,
                    data, data_size, out, out_capacity};
  return perform(&job, out_size);
}

struct mysql_abi_keyring_aes component_aes_service = {get_size, encrypt, decrypt};
