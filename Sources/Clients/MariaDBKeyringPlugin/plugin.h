/* SPDX-License-Identifier: MIT */
/* What the files of keyring_key_management.so share.
 *
 * An encryption key id of MariaDB is the key `mariadb/<id>` of the tenant; its versions are the keyring's. mariadbd aborts where a
 * question is not answered that was answered before, and it asks for the newest version once for each page that it writes. So:
 *
 * 1. What was once learnt stays in memory until the plugin is deinitialised, whatever keyringd says later.
 * 2. A version is announced as the newest only when its key is in memory.
 * 3. Questions about what is in memory take no lock, allocate nothing and touch no network.
 * 4. A version number never goes back.
 * 5. A key is in memory before it is asked for, wherever that can be: InnoDB takes an answer that it does not get for a damaged table. */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keyring.h"

/* MariaDB's numbers (mysql/plugin.h, mysql/plugin_encryption.h), so that most files need no header of it. */
enum { PLUGIN_BUFFER_TOO_SMALL = 100, PLUGIN_KEY_ID_SYSTEM = 1 };
#define PLUGIN_VERSION_INVALID (~0u)

/* ---- start.c ---- */

/* MariaDB's variables keyring_key_management_*, which do not change while the plugin is there. Strings may be NULL before plugin_start. */
struct plugin_settings {
  char *servers, *certificate, *key, *ca, *key_prefix;
  const char *scope;
  unsigned timeout_seconds, connect_timeout_seconds, refresh_seconds, wait_seconds;
  char create, preload, allow_unlocked_memory; /* MariaDB's BOOL */
};

extern struct plugin_settings plugin_settings;
/* From plugin_start to plugin_stop. */
extern keyring *plugin_keyring;

/* Connects, fetches the system key, and starts to look for newer versions. False: logged, and all is as before. */
bool plugin_start(void);
/* Wipes everything. No other thread may be inside any call. */
void plugin_stop(void);

enum { PLUGIN_KEY_NAME_SIZE = 256, PLUGIN_KEY_PREFIX_MAX = 200 };

/* `mariadb/1`. The name points into `buffer`. */
keyring_name plugin_key_name(unsigned id, char buffer[PLUGIN_KEY_NAME_SIZE]);

/* ---- memory.c: what is known ---- */

struct plugin_entry; /* one key id; there until plugin_memory_clear */

/* NULL: nothing is known of it. Any thread, without a lock, as the next three. */
struct plugin_entry *plugin_memory_find(unsigned id);
unsigned plugin_memory_latest(const struct plugin_entry *entry);
/* NULL: that version is not in memory. */
const keyring_key *plugin_memory_version(const struct plugin_entry *entry, unsigned version);
/* When that version was made: as it was first told here, else `created_ms`, which is kept. */
uint64_t plugin_memory_made(struct plugin_entry *entry, unsigned version, uint64_t created_ms);
unsigned plugin_memory_id(const struct plugin_entry *entry);
/* The entries, newest first: NULL after the last. */
struct plugin_entry *plugin_memory_first(void);
struct plugin_entry *plugin_memory_next(const struct plugin_entry *entry);

/* Keeps a key, which it takes in any case, and makes the entry of `id` where there is none. With `announce` its version becomes the newest
 * one unless a newer one is announced. False: no memory. */
bool plugin_memory_add(unsigned id, keyring_key *key, bool announce);
void plugin_memory_count(unsigned *ids, unsigned *versions);
/* Wipes all of it; no other thread may be inside any call. */
void plugin_memory_clear(void);

/* ---- questions.c: what is not in memory is asked for ---- */

unsigned plugin_latest_key_version(unsigned id);
unsigned plugin_get_key(unsigned id, unsigned version, unsigned char *buffer, unsigned *length);

/* Fetches version `version` (0: the newest, which is then announced) into memory. KEYRING_KEY_ABSENT: it is not there. Any failure is in
 * `error`, and not logged. */
keyring_status plugin_fetch(unsigned id, unsigned version, keyring_error *error);
/* Makes the key of `id`; that there is one already is success. */
keyring_status plugin_create(unsigned id, keyring_error *error);
void plugin_questions_forget(void);

/* ---- preload.c: keys are fetched before they are asked for ---- */

/* Every version of every key that is there; done once, and gone on with where it was not finished. Ends early, with KEYRING_OK, when
 * `is_over`; else with the first failure that is not about one key. */
keyring_status plugin_preload(bool (*is_over)(void), keyring_error *error);
/* The versions of one key up to `newest`. */
keyring_status plugin_preload_versions(unsigned id, unsigned newest, bool (*is_over)(void), keyring_error *error);
void plugin_preload_forget(void);

/* ---- refresh.c: newer versions are looked for ---- */

bool plugin_refresh_start(void);
/* Returns when the thread has ended: after the call that it is in, at most the timeout. */
void plugin_refresh_stop(void);
/* Has it look at once. */
void plugin_refresh_wake(void);

/* ---- state.c: how the service is doing, for the log and SHOW STATUS ---- */

/* How a look for newer versions ended; `what` is for the log (`looking for newer versions of mariadb/1`). */
void plugin_note_success(void);
void plugin_note_failure(const char *what, const keyring_error *error);

/* As opposed to one about the service: then the next key will fare no better. */
bool plugin_is_about_one_key(keyring_status status);

struct plugin_state {
  char state[40];               /* `OK`, or the name of the status of the last failure, while it is not over */
  char last_error[768];         /* `` before the first one */
  int64_t last_error_age;       /* seconds; -1: there was none */
  int64_t last_refresh_age;     /* seconds since newer versions were looked for with success; -1: not yet */
  uint64_t failures;
};
void plugin_state_read(struct plugin_state *state);
void plugin_state_reset(void);

uint64_t plugin_clock_ms(void); /* monotonic */

/* ---- log.c ---- */

enum plugin_severity { PLUGIN_NOTE, PLUGIN_WARNING, PLUGIN_ERROR };

/* One line of MariaDB's error log, and nothing for the client of a running statement. Any thread. */
void plugin_log(enum plugin_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line that says why a question was not answered: the same `kind` once in a while, then with how many were left out. The client of the
 * running statement, where there is one, gets it as a warning. */
void plugin_log_question(uint64_t kind, const char *line);
void plugin_log_reset(void);

#endif
