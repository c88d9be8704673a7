/* SPDX-License-Identifier: MIT */
/* InnoDB's master keys that are not there. InnoDB asks for one by name only where a file of the server says that it was made:
 * INNODBKey-<server UUID>-<number>. Where it gets none it leaves those tables shut, forgets how far the numbers were, and makes number 1
 * for the next new table: under the name of an old key, with other bytes. With the right keyring back, the tables made meanwhile would be
 * lost. So the absence is said in the log, and nothing is made under a number that the missing one covers. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "component.h"

enum { MISSING_COUNT = 16, SERVER_SIZE = 64, NUMBER_DIGITS_MOST = 18 };

static const char prefix[] = "INNODBKey-";

struct master {
  char server[SERVER_SIZE]; /* "": a free place */
  unsigned long long number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct master missing[MISSING_COUNT]; /* per server, the highest number */
static unsigned next_place;

/* True where the name is one of a master key. Users' keys have an owner; and the names of 5.7.11, which InnoDB tries after the others,
 * have a number in the UUID's place. */
static bool parse(const char *data_id, const char *auth_id, struct master *master) {
  if ((auth_id && *auth_id) || strncmp(data_id, prefix, sizeof prefix - 1) != 0) return false;
  const char *server = data_id + sizeof prefix - 1, *dash = strrchr(server, '-');
  if (!dash || dash == server || (size_t)(dash - server) >= SERVER_SIZE) return false;
  size_t digits = strspn(dash + 1, "0123456789");
  if (digits == 0 || digits > NUMBER_DIGITS_MOST || dash[1 + digits]) return false;
  memset(master, 0, sizeof *master);
  memcpy(master->server, server, (size_t)(dash - server));
  if (!strchr(master->server, '-')) return false;
  master->number = strtoull(dash + 1, NULL, 10);
  return true;
}

/* With the lock. */
static struct master *place_of(const char *server) {
  for (int i = 0; i < MISSING_COUNT; i++) {
    if (strcmp(missing[i].server, server) == 0) return &missing[i];
  }
  return NULL;
}

static void note_missing(const struct master *master) {
  pthread_mutex_lock(&lock);
  struct master *place = place_of(master->server);
  if (!place) {
    place = &missing[next_place];
    next_place = (next_place + 1) % MISSING_COUNT;
    *place = *master;
  }
  if (place->number < master->number) place->number = master->number;
  pthread_mutex_unlock(&lock);
}

static void note_found(const struct master *master) {
  pthread_mutex_lock(&lock);
  struct master *place = place_of(master->server);
  if (place && place->number <= master->number) memset(place, 0, sizeof *place);
  pthread_mutex_unlock(&lock);
}

static void say(const struct component_link *link, uint64_t kind, const char *text) {
  char line[1280];
  snprintf(line, sizeof line, "keyring %.400s, tenant %s, instance %s: KEY_ABSENT: %s", link->configuration.servers,
           keyring_tenant(link->keyring), keyring_instance(link->keyring), text);
  component_log_failure(MYSQL_ABI_ERROR, kind, line);
}

void component_master_key_fetched(const struct component_link *link, const char *data_id, const char *auth_id, bool is_found) {
  struct master master;
  if (!parse(data_id, auth_id, &master)) return;
  if (is_found) {
    note_found(&master);
    return;
  }
  note_missing(&master);
  char text[512];
  snprintf(text, sizeof text,
           "there is no %s%s-%llu in scope %s, and what is encrypted under it stays shut. Files copied from another server need that "
           "server's keys: the scope shared on both, or its certificate (fetch)",
           prefix, master.server, master.number, link->configuration.scope);
  say(link, 0x6d697373696e67u + master.number, text);
}

bool component_master_key_may_be_made(const struct component_link *link, const char *data_id, const char *auth_id) {
  struct master master;
  if (!parse(data_id, auth_id, &master)) return true;
  pthread_mutex_lock(&lock);
  const struct master *place = place_of(master.server);
  unsigned long long wanted = place ? place->number : 0;
  pthread_mutex_unlock(&lock);
  if (!place || master.number > wanted) return true;
  char text[512];
  snprintf(text, sizeof text,
           "%s%s-%llu is not made, since number %llu, which this server's files name, is missing. Bring it back; or drop the tables "
           "that need it, and restart mysqld (generate)",
           prefix, master.server, master.number, wanted);
  say(link, 0x72656675736564u + master.number, text);
  return false;
}

void component_master_keys_forget(void) {
  pthread_mutex_lock(&lock);
  memset(missing, 0, sizeof missing);
  next_place = 0;
  pthread_mutex_unlock(&lock);
}
