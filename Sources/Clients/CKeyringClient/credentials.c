/* SPDX-License-Identifier: MIT */
/* Certificate, key and CA: read, checked, and read again when the files change.
 *
 * Files are read whole before OpenSSL sees them: the key's into locked memory, through no stream buffer. What OpenSSL keeps of the key
 * while a connection may need it is OpenSSL's. */
#include "credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include "tls.h"

enum { FILE_BYTES_MOST = 1024 * 1024 };

/* A file of the configuration. */
typedef struct content {
  unsigned char *bytes; /* of the locked memory */
  size_t length;
} content;

static void stamp_of(const char *path, credentials_stamp *stamp) {
  struct stat s;
  memset(stamp, 0, sizeof *stamp);
  if (stat(path, &s) != 0) return;
  stamp->device = s.st_dev;
  stamp->inode = s.st_ino;
  stamp->size = s.st_size;
  stamp->modified = s.st_mtim;
  stamp->changed = s.st_ctim;
}

static keyring_status read_whole(int fd, size_t size, const char *what, const char *path, content *to, failure *f) {
  while (to->length < size) {
    ssize_t count = read(fd, to->bytes + to->length, size - to->length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s cannot be read", what, path);
    if (count == 0) break;
    to->length += (size_t)count;
  }
  if (to->length != size) return failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s changed while it was read", what, path);
  return KEYRING_OK;
}

static keyring_status read_file(locked_memory *memory, const char *what, const char *path, bool is_secret, content *to, failure *f) {
  to->bytes = NULL;
  to->length = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    char words[128];
    return failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s: %s", what, path, strerror_r(errno, words, sizeof words));
  }
  struct stat s;
  keyring_status status = KEYRING_OK;
  if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) status = failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s is not a file", what, path);
  else if (s.st_size <= 0 || s.st_size > FILE_BYTES_MOST)
    status = failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s is empty, or over 1 MiB", what, path);
  else if (is_secret && (s.st_mode & 007) != 0)
    status = failure_set(f, KEYRING_BAD_CONFIGURATION, "%s %s is accessible to others: chmod o= it", what, path);
  else if (!(to->bytes = locked_memory_take(memory, (size_t)s.st_size)))
    status = failure_set(f, KEYRING_NO_MEMORY, "no more locked memory (RLIMIT_MEMLOCK?)");
  else status = read_whole(fd, (size_t)s.st_size, what, path, to, f);
  (void)close(fd);
  return status;
}

/* Nobody is asked for a passphrase: a database server has no terminal, or worse, has one. */
static int no_passphrase(char *buffer, int size, int writing, void *user) {
  (void)buffer, (void)size, (void)writing, (void)user;
  return -1;
}

/* The certificate and its intermediates, into the context; the certificate's identity. */
static keyring_status use_certificate(SSL_CTX *context, const content *file, const char *path, identity *who, failure *f) {
  BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->length);
  if (!bio) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  keyring_status status = KEYRING_OK;
  ERR_clear_error();
  X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
  if (!certificate) status = failure_set(f, KEYRING_BAD_CONFIGURATION, "certificate %s: no certificate in PEM", path);
  else if (!identity_of(certificate, who))
    status = failure_set(f, KEYRING_BAD_CONFIGURATION,
                         "certificate %s is not one of a keyring identity: it has not exactly one URI spiffe://.../tenant/...", path);
  else if (SSL_CTX_use_certificate(context, certificate) != 1)
    status = failure_set(f, KEYRING_BAD_CONFIGURATION, "certificate %s: OpenSSL does not take it", path);
  X509_free(certificate);
  while (status == KEYRING_OK) {
    ERR_clear_error();
    X509 *intermediate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    if (!intermediate) {
      if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        status = failure_set(f, KEYRING_BAD_CONFIGURATION, "certificate %s: what follows the certificate is not another one", path);
      break;
    }
    /* The context takes it where it succeeds. */
    if (SSL_CTX_add0_chain_cert(context, intermediate) != 1) {
      X509_free(intermediate);
      status = failure_set(f, KEYRING_BAD_CONFIGURATION, "certificate %s: OpenSSL does not take an intermediate", path);
    }
  }
  BIO_free(bio);
  return status;
}

static keyring_status use_key(SSL_CTX *context, const content *file, const char *path, const char *certificate, failure *f) {
  BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->length);
  if (!bio) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  ERR_clear_error();
  EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
  BIO_free(bio);
  if (!key) return failure_set(f, KEYRING_BAD_CONFIGURATION, "key %s: no private key in PEM without a passphrase", path);
  keyring_status status = KEYRING_OK;
  if (X509_check_private_key(SSL_CTX_get0_certificate(context), key) != 1)
    status = failure_set(f, KEYRING_BAD_CONFIGURATION, "key %s is not the key of certificate %s", path, certificate);
  else if (SSL_CTX_use_PrivateKey(context, key) != 1)
    status = failure_set(f, KEYRING_BAD_CONFIGURATION, "key %s: OpenSSL does not take it", path);
  EVP_PKEY_free(key);
  return status;
}

static keyring_status use_ca(SSL_CTX *context, const content *file, const char *path, failure *f) {
  BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->length);
  if (!bio) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  int count = 0;
  keyring_status status = KEYRING_OK;
  while (status == KEYRING_OK) {
    ERR_clear_error();
    X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
    if (!certificate) {
      if (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        status = failure_set(f, KEYRING_BAD_CONFIGURATION, "ca %s: no certificate in PEM, or a damaged one", path);
      break;
    }
    /* OpenSSL works out a certificate's extensions at its first use, which is in several threads at a time: here it is in one. */
    (void)X509_check_purpose(certificate, -1, 0);
    if (X509_STORE_add_cert(store, certificate) != 1) status = failure_set(f, KEYRING_BAD_CONFIGURATION, "ca %s: OpenSSL does not take it", path);
    X509_free(certificate);
    count++;
  }
  BIO_free(bio);
  return status;
}

static keyring_status load(credentials *c, SSL_CTX **result, identity *who, failure *f) {
  const keyring_config *config = c->config;
  content certificate = {0}, key = {0}, ca = {0};
  keyring_status status = KEYRING_OK;
  ERR_clear_error();
  SSL_CTX *context = tls_context_new();
  if (!context) status = failure_set(f, KEYRING_NO_MEMORY, "OpenSSL makes no TLS 1.3 context");
  if (status == KEYRING_OK) status = read_file(c->memory, "certificate", config->certificate, false, &certificate, f);
  if (status == KEYRING_OK) status = read_file(c->memory, "key", config->key, true, &key, f);
  if (status == KEYRING_OK) status = read_file(c->memory, "ca", config->ca, false, &ca, f);
  if (status == KEYRING_OK) status = use_certificate(context, &certificate, config->certificate, who, f);
  if (status == KEYRING_OK) status = use_key(context, &key, config->key, config->certificate, f);
  if (status == KEYRING_OK) status = use_ca(context, &ca, config->ca, f);
  locked_memory_give(c->memory, ca.bytes);
  locked_memory_give(c->memory, key.bytes);
  locked_memory_give(c->memory, certificate.bytes);
  ERR_clear_error();
  if (status != KEYRING_OK) {
    SSL_CTX_free(context);
    context = NULL;
  }
  *result = context;
  return status;
}

/* The stamp of a file that is not there is zero; reading it will say so. */
static void stamps_now(const keyring_config *config, credentials_stamp stamps[3]) {
  stamp_of(config->certificate, &stamps[0]);
  stamp_of(config->key, &stamps[1]);
  stamp_of(config->ca, &stamps[2]);
}

keyring_status credentials_init(credentials *c, const keyring_config *config, locked_memory *memory, failure *f) {
  memset(c, 0, sizeof *c);
  c->config = config;
  c->memory = memory;
  if (pthread_mutex_init(&c->lock, NULL) != 0) return failure_set(f, KEYRING_NO_MEMORY, "no memory");
  stamps_now(config, c->tried);
  keyring_status status = load(c, &c->context, &c->identity, f);
  if (status != KEYRING_OK) pthread_mutex_destroy(&c->lock);
  return status;
}

void credentials_destroy(credentials *c) {
  SSL_CTX_free(c->context);
  pthread_mutex_destroy(&c->lock);
}

/* A file may be half written, or the certificate there and its key not yet: then the stamps change once more, and it is read again. */
static void reload(credentials *c) {
  SSL_CTX *context = NULL;
  identity who;
  failure f = {0};
  keyring_status status = load(c, &context, &who, &f);
  if (status == KEYRING_OK && strcmp(who.uri, c->identity.uri) != 0) {
    SSL_CTX_free(context);
    status = failure_set(&f, KEYRING_BAD_CONFIGURATION, "certificate %s is another identity's now: %s", c->config->certificate, who.uri);
  }
  if (status == KEYRING_OK) {
    SSL_CTX_free(c->context);
    c->context = context;
    c->trouble[0] = 0;
  } else {
    failure_copy_text(c->trouble, sizeof c->trouble, f.text);
    /* Good files may not load for a reason that passes (no memory, no descriptor): the next connection tries again. */
    memset(c->tried, 0, sizeof c->tried);
  }
}

/* With the lock held. */
static void bring_up_to_date(credentials *c) {
  credentials_stamp now[3];
  stamps_now(c->config, now);
  if (memcmp(now, c->tried, sizeof now) == 0) return;
  memcpy(c->tried, now, sizeof now);
  reload(c);
}

bool credentials_are_newer(credentials *c, const SSL_CTX *than) {
  pthread_mutex_lock(&c->lock);
  bring_up_to_date(c);
  bool are_newer = c->context != than;
  pthread_mutex_unlock(&c->lock);
  return are_newer;
}

SSL_CTX *credentials_take(credentials *c, char *trouble) {
  pthread_mutex_lock(&c->lock);
  bring_up_to_date(c);
  SSL_CTX *context = SSL_CTX_up_ref(c->context) == 1 ? c->context : NULL;
  memcpy(trouble, c->trouble, sizeof c->trouble);
  pthread_mutex_unlock(&c->lock);
  return context;
}
