/* libkeyring: a client of keyring in C11.
 *
 * One keyringd keeps the keys of many tenants' databases. A program that holds the certificate of one of a tenant's
 * instances reads and changes the keys of that tenant: its own ones (scope instance) and those that the tenant's
 * instances share (scope shared). docs/DATABASES.md is the guide, docs/WIRE_PROTOCOL.md the protocol.
 *
 *     keyring_config *config = keyring_config_new();
 *     keyring_config_set(config, "servers", "keyring.example.org:8550", &error);
 *     ...certificate, key, ca
 *     keyring *k;
 *     if (keyring_open(config, &k, &error) != KEYRING_OK) ...
 *     keyring_key *key;
 *     switch (keyring_fetch(k, &name, 0, &key, &error)) {
 *     case KEYRING_OK:  key == NULL says: the server knows that there is no such key
 *     default:          cannot tell: never take this for "absent"
 *     }
 *
 * Threads: one `keyring` may be used by any number of threads at a time. The library starts no thread of its own,
 * installs no signal handler, and writes to sockets with MSG_NOSIGNAL. After fork() the child may use a `keyring` of
 * its parent: it lets go of the parent's connections without a word on them and makes its own. (A fork while another
 * thread is inside a call leaves that call's locks behind, as everywhere.)
 *
 * Time: every call returns by its deadline, `timeout_ms` from its begin, whatever the server and the network do. The one
 * part that the library cannot bound exactly is the resolution of a host name (getaddrinfo): it is told one try of one
 * second a name server; addresses as numbers, or a name in /etc/hosts, wait for nobody.
 *
 * Memory: key material is in the caller's buffers, or in memory of the library that is locked (mlock), left out of core
 * dumps and wiped when freed. Names, types and messages are not secret. */
#ifndef KEYRING_H
#define KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KEYRING_API __attribute__((visibility("default")))
#else
#define KEYRING_API
#endif

/* The version of this header; keyring_version() is that of the library. */
#define KEYRING_VERSION_MAJOR 1
#define KEYRING_VERSION_MINOR 0

/* How a call ended. Up to 999: the server's answer, numbered as `Reason` in Protos/keyring/v1/keyring.proto, whose comments say
 * more; from 1000: what the library found itself. A later library may know more of both kinds. */
typedef enum keyring_status {
  KEYRING_OK = 0,
  KEYRING_KEY_EXISTS = 1,            /* there, and left as it is */
  KEYRING_KEY_ABSENT = 2,            /* nothing there to remove or rotate */
  KEYRING_NAME_INVALID = 3,          /* empty or too long key id, too long owner */
  KEYRING_TYPE_INVALID = 4,          /* the tenant's profile has no such type */
  KEYRING_LENGTH_INVALID = 5,        /* the tenant's profile does not allow this length */
  KEYRING_REQUEST_MALFORMED = 6,     /* a defect, or a server older than this library */
  KEYRING_FORBIDDEN = 7,             /* this certificate has no such call, its instance is revoked, or there is no such tenant */
  KEYRING_TENANT_LOCKED = 8,         /* the KMS refuses the CMK, or an administrator locked the tenant */
  KEYRING_TENANT_DISABLED = 9,       /* an administrator disabled the tenant */
  KEYRING_TENANT_QUARANTINED = 10,   /* the storage file is not the expected one; an operator has to decide */
  KEYRING_KMS_UNREACHABLE = 11,      /* the KMS does not answer the server */
  KEYRING_KMS_DENIED = 12,           /* the KMS refuses the configured CMK; nothing can be written */
  KEYRING_STORAGE_CHANGED = 13,      /* the storage file changed under the server; nothing was written */
  KEYRING_STORAGE_UNAVAILABLE = 14,  /* the server's disk; nothing changed */
  KEYRING_OUTCOME_UNKNOWN = 15,      /* the change may or may not have happened */
  KEYRING_THROTTLED = 16,            /* over a limit; the message names it */
  KEYRING_WRAPPING_KEY_EXHAUSTED = 17,
  KEYRING_IDEMPOTENCY_MISMATCH = 18,
  KEYRING_STALE = 19,
  KEYRING_LIST_EXPIRED = 20,
  KEYRING_TIMEOUT = 21,              /* the time ran out before the call was executed */
  KEYRING_VARIABLE_INVALID = 22,     /* no such variable, or not to this value; the old value is in force */
  KEYRING_SHUTTING_DOWN = 24,
  KEYRING_INTERNAL_ERROR = 25,       /* a defect of the server, whose log says more */
  KEYRING_MESSAGE_TOO_LARGE = 26,
  KEYRING_CMK_TRANSIENT = 27,        /* rotate-keys: `set persist cmk_id` first */
  KEYRING_PROVIDER_REFUSED = 28,     /* the KMS cannot do this, or its own limit is reached */
  KEYRING_CONFIGURATION_INVALID = 30,/* the tenant's configuration on the server cannot be used */
  KEYRING_AUDIT_UNAVAILABLE = 40,    /* the tenant's audit log is strict and cannot be written */

  KEYRING_BAD_ARGUMENT = 1000,       /* this call's arguments, or the configuration given to it; nothing was sent */
  KEYRING_BAD_CONFIGURATION = 1001,  /* a file of the configuration is missing, unreadable or not what it should be */
  KEYRING_UNREACHABLE = 1002,        /* no server of the list could be connected to, or none answered in time */
  KEYRING_REFUSED = 1003,            /* TLS: the server refuses our certificate, or we its */
  KEYRING_PROTOCOL = 1004,           /* what answered does not speak keyring/1 as this library does */
  KEYRING_NO_MEMORY = 1005,          /* no memory, or no more locked memory (RLIMIT_MEMLOCK) */
  KEYRING_BUFFER_TOO_SMALL = 1006    /* keyring_fetch_into: `*length` says how much is needed */
} keyring_status;

/* `KEY_EXISTS` for KEYRING_KEY_EXISTS, and so on; `UNKNOWN_STATUS` for a number that this library does not know. Never NULL. */
KEYRING_API const char *keyring_status_name(keyring_status status);

/* `1.0`. */
KEYRING_API const char *keyring_version(void);

/* Why a call failed. Written by every call that takes one and fails, left alone by one that succeeds; may be NULL where the
 * caller does not care. */
typedef struct keyring_error {
  keyring_status status;
  uint32_t retry_after_ms; /* after how long trying again may help; 0: no opinion */
  /* One line, NUL-terminated, for people: which keyring (server), which tenant and instance, what went wrong, as far as known.
   * Never key material. For example
   * `keyring localhost:8550, tenant acme, instance db1: TENANT_LOCKED: the KMS refuses the CMK`. */
  char message[768];
} keyring_error;

/* ---- Configuration ---- */

typedef struct keyring_config keyring_config;

/* An empty configuration, with every setting at its default; NULL where there is no memory. */
KEYRING_API keyring_config *keyring_config_new(void);

/* Sets one setting; the value is copied. An unknown name or a value that it cannot have is KEYRING_BAD_ARGUMENT, and the message
 * says what would be right. Durations are milliseconds.
 *
 * | name                    | default    | meaning
 * | `servers`               | (required) | `host:port`, or `[address]:port`, as in `[fe80::1%eth0]:8550`; several, separated by commas, are
 * |                         |            | tried from the one that answered last
 * | `certificate`           | (required) | PEM file: the client's certificate, then intermediates. Read anew, with `key` and `ca`,
 * |                         |            | at each connection, so a renewed one is taken without a restart
 * | `key`                   | (required) | PEM file of its private key, without a passphrase; not accessible to others
 * | `ca`                    | (required) | PEM file of the CA of the server's certificate
 * | `scope`                 | `instance` | `instance` or `shared`: what KEYRING_SCOPE_DEFAULT means
 * | `timeout_ms`            | 5000       | a call's deadline; 1 to 600000
 * | `connect_timeout_ms`    | 2000       | of which for one server's TCP connection and TLS handshake
 * | `connections`           | 4          | open connections at most; 1 to 64. More calls at a time than these wait for their turn
 * | `cache_ms`              | 0 (off)    | for how long a fetched key is answered again without asking the server
 * | `cache_outage_ms`       | 0 (off)    | for how long beyond that it is answered still while no server can be reached
 * | `cache_keys`            | 64         | versions of keys in the cache at most; the least recently used goes
 * | `allow_unlocked_memory` | `false`    | `true`: go on where memory cannot be locked. Keys may then reach the swap
 *
 * The cache. A revoked instance, a locked tenant and a removed or replaced key of another instance become known here only when
 * the server is asked again: at most `cache_ms` late while it answers, `cache_ms` + `cache_outage_ms` while it does not. Any answer
 * other than the key takes it from the cache at once; so do store, generate, remove and rotate of that key through the same
 * `keyring`. FORBIDDEN to read, TENANT_LOCKED, TENANT_DISABLED, TENANT_QUARANTINED and a certificate that the server does not
 * take, whichever call meets them, empty the cache; a stranger in the server's place (REFUSED, too) neither takes from it nor is
 * bridged by it. "No server can be reached" is where without a cache the answer would be UNREACHABLE (so also: silent ones, or all
 * `connections` taken by other calls until the deadline) or SHUTTING_DOWN: a server that answers no is believed. Absence is never
 * cached. */
KEYRING_API keyring_status keyring_config_set(keyring_config *config, const char *name, const char *value,
                                              keyring_error *error);

/* Sets `servers`, `certificate`, `key` and `ca` from KEYRING_SERVER, KEYRING_CERT, KEYRING_KEY and KEYRING_CA, as keyringctl reads
 * them; those that are not in the environment stay as they are. */
KEYRING_API keyring_status keyring_config_set_from_environment(keyring_config *config, keyring_error *error);

/* NULL is allowed. */
KEYRING_API void keyring_config_free(keyring_config *config);

/* ---- A keyring ---- */

typedef struct keyring keyring;

/* Checks the configuration, reads the certificate, its key and the CA once, and makes `*result`. Connects to nothing: the first
 * call does. The configuration is copied, and may be freed. Fails with KEYRING_BAD_ARGUMENT (a required setting is missing),
 * KEYRING_BAD_CONFIGURATION (a file; the certificate is not one of a keyring identity) or KEYRING_NO_MEMORY; `*result` is then NULL. */
KEYRING_API keyring_status keyring_open(const keyring_config *config, keyring **result, keyring_error *error);

/* Closes its connections, wipes its cache and frees it. No other thread may be inside a call on it, and every keyring_key of it
 * must have been freed. NULL is allowed. */
KEYRING_API void keyring_close(keyring *k);

/* Closes the connections that no call is using (a call that comes later connects again): for a program that is about to fork or to
 * change its user. */
KEYRING_API void keyring_disconnect(keyring *k);

/* Wipes the cache. */
KEYRING_API void keyring_forget(keyring *k);

/* The tenant and the instance in the client's certificate, as keyring_open read it; `` where it is an administrator's. Valid as long as `k`. */
KEYRING_API const char *keyring_tenant(const keyring *k);
KEYRING_API const char *keyring_instance(const keyring *k);

/* Who the server takes the caller for. */
typedef struct keyring_identity {
  char uri[256];           /* the URI of the certificate */
  char tenant[64];
  char instance[64];       /* `` for an administrator */
  uint64_t not_after;      /* when the certificate ends, Unix seconds */
  char server_version[64];
  char profile[32];        /* what keys the tenant may have: `keyring_aws`, `general`, `any` */
  bool read_only;          /* every change is refused */
  char server[300];        /* which of `servers` answered */
} keyring_identity;

/* Asks the server who we are: the way to try a configuration. */
KEYRING_API keyring_status keyring_who_am_i(keyring *k, keyring_identity *identity, keyring_error *error);

/* ---- Keys ---- */

typedef enum keyring_scope {
  KEYRING_SCOPE_DEFAULT = 0, /* the configured one */
  KEYRING_SCOPE_INSTANCE = 1,
  KEYRING_SCOPE_SHARED = 2
} keyring_scope;

/* The identity of a key: bytes, case-sensitive. The pointers are read during the call only. */
typedef struct keyring_name {
  keyring_scope scope;
  const void *owner; /* the database user as `user@host`, at most 512 bytes; NULL or of length 0: the database server itself */
  size_t owner_length;
  const void *key_id; /* 1 to 255 bytes */
  size_t key_id_length;
} keyring_name;

/* Of C strings; `owner` may be NULL. */
static inline keyring_name keyring_name_of(keyring_scope scope, const char *owner, const char *key_id) {
  keyring_name name = {scope, owner, 0, key_id, 0};
  if (owner) while (owner[name.owner_length]) name.owner_length++;
  if (key_id) while (key_id[name.key_id_length]) name.key_id_length++;
  return name;
}

/* What is known of one version of a key, without its material. */
typedef struct keyring_info {
  keyring_scope scope;
  unsigned char owner[512];
  size_t owner_length;
  unsigned char key_id[256]; /* a NUL follows the last byte */
  size_t key_id_length;
  char type[128];            /* `AES`, `SECRET`, ... as stored */
  uint32_t version;          /* from 1 */
  uint32_t latest_version;
  uint32_t length;           /* bytes of key material */
  uint64_t created_ms;       /* Unix milliseconds */
} keyring_info;

/* A fetched key in locked memory. It does not change, belongs to the caller, and may be read by many threads. */
typedef struct keyring_key keyring_key;

/* Fetches a version of a key; version 0 is the newest. KEYRING_OK with `*key` NULL: the server knows that there is no such key, or no
 * such version of it. Any other status: cannot tell. Free with keyring_key_free before keyring_close. */
KEYRING_API keyring_status keyring_fetch(keyring *k, const keyring_name *name, uint32_t version, keyring_key **key,
                                         keyring_error *error);

KEYRING_API const unsigned char *keyring_key_bytes(const keyring_key *key); /* keyring_key_length of them; no NUL follows */
KEYRING_API size_t keyring_key_length(const keyring_key *key);              /* at least 1 */
KEYRING_API const char *keyring_key_type(const keyring_key *key);
KEYRING_API uint32_t keyring_key_version(const keyring_key *key);
KEYRING_API uint32_t keyring_key_latest_version(const keyring_key *key);
/* True where it comes from the cache because no server could be reached (`cache_outage_ms`). */
KEYRING_API bool keyring_key_is_stale(const keyring_key *key);
/* Wipes it. NULL is allowed. */
KEYRING_API void keyring_key_free(keyring_key *key);

/* Fetches into memory of the caller. `found` false: absent. `*length` becomes the length of the key; where it is more than `capacity`:
 * KEYRING_BUFFER_TOO_SMALL, and nothing is written. `info` may be NULL; its `created_ms` is 0 here. */
KEYRING_API keyring_status keyring_fetch_into(keyring *k, const keyring_name *name, uint32_t version, void *buffer,
                                              size_t capacity, size_t *length, bool *found, keyring_info *info,
                                              keyring_error *error);

/* What is known of a key; never from the cache. `found` false: absent, and `info` is untouched. */
KEYRING_API keyring_status keyring_describe(keyring *k, const keyring_name *name, uint32_t version, bool *found,
                                            keyring_info *info, keyring_error *error);

/* Changes. KEYRING_OK: durable on the server. They are sent again under one idempotency id (a UUIDv7) where a connection breaks, so
 * that they happen once; where it cannot be known by the deadline whether they did, KEYRING_OUTCOME_UNKNOWN. */

/* Stores bytes of the caller, 1 to 16384; KEYRING_KEY_EXISTS where there is such a key. */
KEYRING_API keyring_status keyring_store(keyring *k, const keyring_name *name, const char *type, const void *bytes,
                                         size_t length, keyring_error *error);
/* Has the tenant's KMS generate a key of `length` bytes; KEYRING_KEY_EXISTS where there is such a key. */
KEYRING_API keyring_status keyring_generate(keyring *k, const keyring_name *name, const char *type, size_t length,
                                            keyring_error *error);
/* Adds a version with the type and length of the newest one; `version` (may be NULL) becomes its number. KEYRING_KEY_ABSENT where
 * there is no key. Older versions stay fetchable. */
KEYRING_API keyring_status keyring_rotate(keyring *k, const keyring_name *name, uint32_t *version, keyring_error *error);
/* Removes a key with all its versions; KEYRING_KEY_ABSENT where there is none. */
KEYRING_API keyring_status keyring_remove(keyring *k, const keyring_name *name, keyring_error *error);

/* The keys of one scope as they are now: one snapshot, by owner, then key id, as bytes. It takes 1 KiB of memory a key (a
 * keyring_info), and at most 4 Mi keys; more are NO_MEMORY. */
typedef struct keyring_listing keyring_listing;

/* `owner` NULL: those of every owner; else those of the owner of `owner_length` bytes (0: the database server itself). Free with keyring_listing_free. */
KEYRING_API keyring_status keyring_list(keyring *k, keyring_scope scope, const void *owner, size_t owner_length,
                                        keyring_listing **listing, keyring_error *error);
KEYRING_API size_t keyring_listing_count(const keyring_listing *listing);
/* NULL past the end. Valid until keyring_listing_free. */
KEYRING_API const keyring_info *keyring_listing_entry(const keyring_listing *listing, size_t index);
/* NULL is allowed. */
KEYRING_API void keyring_listing_free(keyring_listing *listing);

/* ---- Waiting ---- */

/* True for what may be over in a moment without anybody doing anything: no server answers, or the one that does cannot just now. For a
 * program that waits at its start; calls try again by themselves as long as their time lasts. After KEYRING_OUTCOME_UNKNOWN a change may
 * have happened: look before it is repeated. */
KEYRING_API bool keyring_status_is_passing(keyring_status status);

#ifdef __cplusplus
}
#endif

#endif
