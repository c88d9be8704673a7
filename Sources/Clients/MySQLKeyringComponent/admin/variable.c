/* SPDX-License-Identifier: MIT */
/* component_keyring_service_admin.cmk_id: shows the CMK that is in force on keyringd, as of the last look, and sets it there.
 *
 * The check does the work: only a check can refuse a value. What SELECT shows is what keyringd answered after that, not what was
 * assigned, so it is true also where another assignment of the statement fails, or where somebody else has set another one since.
 * A value of my.cnf or mysqld-auto.cnf is never sent to keyringd, which several database servers and keyringctl share: it is compared
 * with the first one that is seen there, and a difference is logged. So is what SET PERSIST_ONLY writes: MySQL asks no check about it.
 * MySQL assigns what it has persisted when the component is there already, in a session of its own that has no statement. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"

enum { STATEMENT_SIZE = 65536 };

/* MySQL reads `shown` whenever somebody selects it, under a lock of its own: so a text that was shown once stays until the
 * variable is gone, and a CMK that is set again gets its old place. */
struct text {
  struct text *next;
  char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct text *texts;
static char *shown;
static uint64_t tickets;
static uint64_t shown_ticket;
static atomic_bool installed; /* false: values come from my.cnf, mysqld-auto.cnf or INSTALL COMPONENT ... SET */
static char configured[ADMIN_CMK_ID_SIZE]; /* under the lock; `` where there is nothing to compare, or it was */

/* Under the lock. NULL: no memory. */
static char *keep(const char *bytes) {
  for (struct text *text = texts; text; text = text->next) {
    if (strcmp(text->bytes, bytes) == 0) return text->bytes;
  }
  size_t size = strlen(bytes) + 1;
  struct text *text = malloc(sizeof *text + size);
  if (!text) return NULL;
  memcpy(text->bytes, bytes, size);
  text->next = texts;
  texts = text;
  return text->bytes;
}

uint64_t admin_variable_ticket(void) {
  pthread_mutex_lock(&lock);
  uint64_t ticket = ++tickets;
  pthread_mutex_unlock(&lock);
  return ticket;
}

void admin_variable_show(const char *cmk_id, uint64_t ticket) {
  pthread_mutex_lock(&lock);
  if (ticket >= shown_ticket) {
    shown_ticket = ticket;
    __atomic_store_n(&shown, cmk_id ? keep(cmk_id) : NULL, __ATOMIC_RELEASE);
  }
  pthread_mutex_unlock(&lock);
}

static void configure(const char *value) {
  pthread_mutex_lock(&lock);
  snprintf(configured, sizeof configured, "%s", value ? value : "");
  pthread_mutex_unlock(&lock);
}

/* Once: a difference is logged, of what MySQL's files say and what keyringd does. */
static void compare(const char *cmk_id) {
  char ours[ADMIN_CMK_ID_SIZE];
  pthread_mutex_lock(&lock);
  memcpy(ours, configured, sizeof ours);
  configured[0] = 0;
  pthread_mutex_unlock(&lock);
  if (!*ours || strcmp(ours, cmk_id) == 0) return;
  admin_log(MYSQL_ABI_WARNING,
            "keyring: " ADMIN_NAME "." ADMIN_VARIABLE " is %s in the configuration of this database server, and %s is in force on "
            "keyringd. Nothing was changed: SET PERSIST sets it there, RESET PERSIST forgets it here",
            ours, cmk_id);
}

void admin_variable_found(const char *cmk_id, uint64_t ticket) {
  admin_variable_show(cmk_id, ticket);
  compare(cmk_id);
}

/* Where the look fails, what was set a moment ago is the best there is. */
static void look(const struct admin_link *link, const char *otherwise) {
  char cmk_id[ADMIN_CMK_ID_SIZE];
  uint64_t ticket = admin_variable_ticket();
  keyring_status status = keyring_admin_get(link->keyring, "cmk_id", cmk_id, sizeof cmk_id, NULL, NULL);
  admin_variable_show(status == KEYRING_OK ? cmk_id : otherwise, ticket);
}

/* ---- SET ---- */

static int refuse(mysql_abi_session session, const char *user, const char *why, const char *whole) {
  admin_log(MYSQL_ABI_ERROR, "SET " ADMIN_NAME "." ADMIN_VARIABLE " by %s refused: %s", user, whole);
  admin_warn(session, "SET " ADMIN_VARIABLE, why);
  return 1;
}

static enum admin_scope scope_of(mysql_abi_session session, bool *has_statement) {
  char *statement = malloc(STATEMENT_SIZE);
  enum admin_scope scope = ADMIN_UNCLEAR;
  *has_statement = true;
  if (statement && admin_statement(session, statement, STATEMENT_SIZE)) {
    *has_statement = *statement != 0;
    scope = admin_scope_of(statement, ADMIN_NAME, ADMIN_VARIABLE);
  }
  free(statement);
  return scope;
}

/* Proved by keyringd, and in force there when this returns 0. */
static int set(mysql_abi_session session, const char *user, const char *value, enum admin_scope scope) {
  struct admin_link link;
  keyring_error error = {0};
  bool persist = scope == ADMIN_PERSIST;
  if (!admin_open(&link, UINT32_MAX, &error)) return refuse(session, user, admin_why(&error), error.message);
  keyring_status status = keyring_admin_set(link.keyring, "cmk_id", value, persist ? KEYRING_PERSIST : KEYRING_GLOBAL, &error);
  if (status == KEYRING_OK) {
    admin_log(MYSQL_ABI_SYSTEM, "keyring %s, tenant %s: SET %s " ADMIN_NAME "." ADMIN_VARIABLE " by %s: %s is in force",
              link.server, keyring_tenant(link.keyring), persist ? "PERSIST" : "GLOBAL", user, value);
    configure(NULL);
    look(&link, value);
  }
  admin_close(&link);
  return status == KEYRING_OK ? 0 : refuse(session, user, admin_why(&error), error.message);
}

static const char *objection(const char *value, enum admin_scope scope) {
  if (scope == ADMIN_UNCLEAR) {
    return "write SET GLOBAL or SET PERSIST " ADMIN_NAME "." ADMIN_VARIABLE " = '...' as a statement of its own";
  }
  if (!*value) return "VARIABLE_INVALID: a CMK has an id";
  /* What the wire means by it is not the id of a CMK. */
  if (strcmp(value, "DEFAULT") == 0) return "VARIABLE_INVALID: to go back, set the CMK's id, or use keyringctl set global cmk_id DEFAULT";
  return NULL;
}

/* mysqld's own assignment. To refuse it would be an error in the log at each start. */
static int take_persisted(const char *cmk_id) {
  const char *now = __atomic_load_n(&shown, __ATOMIC_ACQUIRE);
  configure(cmk_id);
  if (now) compare(now);
  return 0;
}

static int check(mysql_abi_session session, struct mysql_abi_variable *variable, void *save, struct mysql_abi_value *value) {
  (void)variable;
  char buffer[ADMIN_CMK_ID_SIZE], user[ADMIN_USER_SIZE];
  int length = (int)sizeof buffer;
  const char *text = value->get_string(value, buffer, &length);
  char cmk_id[ADMIN_CMK_ID_SIZE] = "";
  bool fits = text && length >= 0 && (size_t)length < sizeof cmk_id && memchr(text, 0, (size_t)length) == NULL;
  if (fits) memcpy(cmk_id, text, (size_t)length);
  *(const char **)save = NULL;
  if (!atomic_load(&installed)) {
    configure(cmk_id);
    return 0;
  }
  if (!admin_permitted(session)) return 1;
  admin_user(session, user);
  if (!fits) return refuse(session, user, "VARIABLE_INVALID: not the id of a CMK", "VARIABLE_INVALID: not the id of a CMK");
  bool has_statement;
  enum admin_scope scope = scope_of(session, &has_statement);
  if (!has_statement) return take_persisted(cmk_id);
  const char *why = objection(cmk_id, scope);
  if (why) return refuse(session, user, why, why);
  return set(session, user, cmk_id, scope);
}

/* What is shown has been changed by the check. */
static void update(mysql_abi_session session, struct mysql_abi_variable *variable, void *place, const void *save) {
  (void)session, (void)variable, (void)place, (void)save;
}

/* ---- installation ---- */

bool admin_variable_add(void) {
  struct mysql_abi_string_variable kind = {NULL};
  atomic_store(&installed, false);
  configure(NULL);
  shown = NULL;
  return admin_mysql_variables->add(ADMIN_NAME, ADMIN_VARIABLE, MYSQL_ABI_VARIABLE_STRING | MYSQL_ABI_VARIABLE_NO_DEFAULT,
                                    "The CMK in force on keyringd, as of the last look. SET GLOBAL or PERSIST: proved and set there.",
                                    check, update, &kind, &shown) == 0;
}

bool admin_variable_remove(void) {
  if (admin_mysql_removal->remove(ADMIN_NAME, ADMIN_VARIABLE) != 0) return false;
  atomic_store(&installed, false);
  return true;
}

void admin_variable_forget(void) {
  pthread_mutex_lock(&lock);
  shown = NULL;
  while (texts) {
    struct text *gone = texts;
    texts = gone->next;
    free(gone);
  }
  pthread_mutex_unlock(&lock);
}

void admin_variable_begin(void) {
  struct admin_link link;
  keyring_error error = {0};
  char cmk_id[ADMIN_CMK_ID_SIZE];
  /* MySQL has put the value of its files here, in memory of its own. */
  if (shown) configure(shown);
  admin_variable_show(NULL, admin_variable_ticket());
  atomic_store(&installed, true);
  uint64_t ticket = admin_variable_ticket();
  if (admin_open(&link, ADMIN_LOOK_MS, &error) &&
      keyring_admin_get(link.keyring, "cmk_id", cmk_id, sizeof cmk_id, NULL, &error) == KEYRING_OK) {
    admin_variable_found(cmk_id, ticket);
  } else {
    admin_log(MYSQL_ABI_WARNING, "%s (" ADMIN_NAME " is there all the same; each statement tries again)", error.message);
  }
  admin_close(&link);
}
