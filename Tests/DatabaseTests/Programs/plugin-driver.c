/* SPDX-License-Identifier: MIT */
/* mariadbd's part for keyring_key_management.so: finds the plugin as mariadbd does, gives it an error log, sets its variables, and asks
 * its two questions, from many threads where that is wanted, as commands say (driver.h).
 *
 *     plugin-driver PLUGIN.so
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <mysql/plugin_encryption.h>

#include "driver.h"

enum { THREADS = 64, SETTINGS = 64, VERSIONS = 256, KEY_SIZE = 32, WAIT_TICKS = 3000, TICK_US = 10000 };

static void *library;
static struct st_maria_plugin *plugin;
static struct st_mariadb_encryption *encryption;

static void check(bool good, const char *what) {
  if (good) return;
  fprintf(stderr, "plugin-driver: %s\n", what);
  exit(3);
}

/* ---- the error log ---- */

static void print_error(unsigned int number, const char *format, unsigned long flags, ...) {
  check(number != 0 && strcmp(format, "%s") == 0, "a format of the plugin's own reaches the error log");
  va_list arguments;
  va_start(arguments, flags);
  const char *text = va_arg(arguments, const char *);
  va_end(arguments);
  check(strlen(text) < 512, "mariadbd would cut the line");
  check((flags & (ME_ERROR_LOG | ME_ERROR_LOG_ONLY)) != 0, "a line that does not reach the error log");
  printf("log %s %s\n", flags & ME_NOTE ? "note" : flags & ME_WARNING ? "warning" : "error", text);
}

static struct my_print_error_service_st error_service = {.my_printf_error_func = print_error};

/* ---- as mariadbd finds it ---- */

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  check(found != NULL, name);
  return found;
}

static void open_plugin(const char *path) {
  library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fprintf(stderr, "%s\n", dlerror());
  check(library != NULL, path);
  check(*(int *)symbol("_maria_plugin_interface_version_") == MARIA_PLUGIN_INTERFACE_VERSION, "another plugin interface");
  check(*(int *)symbol("_maria_sizeof_struct_st_plugin_") == (int)sizeof *plugin, "another size of the declaration");
  plugin = symbol("_maria_plugin_declarations_");
  check(plugin[1].info == NULL && plugin[1].name == NULL, "more than one plugin");
  encryption = plugin->info;
  check(plugin->type == MariaDB_ENCRYPTION_PLUGIN, "another kind of plugin");
  check(encryption->interface_version == MariaDB_ENCRYPTION_INTERFACE_VERSION, "another version of the encryption interface");
  check(!encryption->crypt_ctx_size && !encryption->crypt_ctx_init && !encryption->crypt_ctx_update &&
            !encryption->crypt_ctx_finish && !encryption->encrypted_length,
        "a cipher of its own");
  /* The version of the service is in the place of its functions until mariadbd puts these there. */
  void **service = symbol("my_print_error_service");
  check(*service == (void *)0x0100, "another version of the error log's service");
  *service = &error_service;
}

/* ---- variables ---- */

/* The layouts that plugin.h's macros make. */
struct st_mysql_sys_var {
  MYSQL_PLUGIN_VAR_HEADER;
};
struct text_variable {
  MYSQL_PLUGIN_VAR_HEADER;
  char **value;
  char *initial;
};
struct flag_variable {
  MYSQL_PLUGIN_VAR_HEADER;
  char *value;
  char initial;
};
struct number_variable {
  MYSQL_PLUGIN_VAR_HEADER;
  unsigned *value, initial, least, most, block;
};
struct choice_variable {
  MYSQL_PLUGIN_VAR_HEADER;
  unsigned long *value, initial;
  TYPELIB *choices;
};

enum { KIND = 0x7f };

/* `text` NULL: the default. */
static bool assign(struct st_mysql_sys_var *variable, char *text) {
  check(variable->flags & PLUGIN_VAR_READONLY, "a variable that can change while the plugin runs");
  switch (variable->flags & KIND) {
    case PLUGIN_VAR_STR: {
      struct text_variable *all = (struct text_variable *)variable;
      *all->value = text ? text : all->initial;
      return true;
    }
    case PLUGIN_VAR_BOOL: {
      struct flag_variable *all = (struct flag_variable *)variable;
      *all->value = text ? strcmp(text, "ON") == 0 : all->initial;
      return true;
    }
    case PLUGIN_VAR_INT: {
      struct number_variable *all = (struct number_variable *)variable;
      unsigned number = text ? (unsigned)strtoul(text, NULL, 10) : all->initial;
      *all->value = number < all->least ? all->least : number > all->most ? all->most : number;
      return true;
    }
    case PLUGIN_VAR_ENUM: {
      struct choice_variable *all = (struct choice_variable *)variable;
      *all->value = all->initial;
      for (unsigned i = 0; text && i < all->choices->count; i++) {
        if (strcmp(all->choices->type_names[i], text) == 0) *all->value = i;
      }
      return !text || strcmp(all->choices->type_names[*all->value], text) == 0;
    }
    default: return false;
  }
}

static void set_defaults(void) {
  for (struct st_mysql_sys_var **at = plugin->system_vars; *at; at++) check(assign(*at, NULL), (*at)->name);
}

static void result(bool good) { printf("%s\n", good ? "ok" : "failed"); }

/* As mariadbd's options, they stay as long as the plugin. */
static char *texts[SETTINGS];
static size_t text_count;

/* set NAME VALUE, `=` for the empty string */
static void set(char **word) {
  for (struct st_mysql_sys_var **at = plugin->system_vars; *at; at++) {
    if (strcmp((*at)->name, word[1]) != 0) continue;
    char *text = strdup(strcmp(word[2], "=") == 0 ? "" : word[2]);
    check(text && text_count < SETTINGS, "too many settings");
    texts[text_count++] = text;
    result(assign(*at, text));
    return;
  }
  printf("no variable\n");
}

/* ---- questions ---- */

static unsigned number(const char *word) { return (unsigned)strtoul(word, NULL, 10); }

static void latest(char **word) {
  unsigned version = encryption->get_latest_key_version(number(word[1]));
  if (version == ENCRYPTION_KEY_VERSION_INVALID) {
    printf("none\n");
  } else {
    printf("version %u\n", version);
  }
}

/* Into a buffer of exactly that size, on the heap, where a sanitizer watches its ends. */
static unsigned get(unsigned id, unsigned version, unsigned capacity, unsigned char key[KEY_SIZE], unsigned *length) {
  unsigned char *buffer = malloc(capacity);
  check(buffer || capacity == 0, "no memory");
  *length = capacity;
  unsigned answer = encryption->get_key(id, version, buffer, length);
  if (answer == 0) memcpy(key, buffer, *length);
  free(buffer);
  return answer;
}

/* key ID VERSION CAPACITY */
static void key(char **word) {
  unsigned char bytes[KEY_SIZE];
  char hex[2 * KEY_SIZE + 1] = "";
  unsigned length, capacity = number(word[3]);
  check(capacity <= KEY_SIZE, "a buffer that mariadbd would not give");
  unsigned answer = get(number(word[1]), number(word[2]), capacity, bytes, &length);
  for (unsigned i = 0; answer == 0 && i < length; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
  if (answer == 0) {
    printf("key %s\n", hex);
  } else if (answer == ENCRYPTION_KEY_BUFFER_TOO_SMALL) {
    printf("needs %u\n", length);
  } else {
    printf("%s\n", answer == ENCRYPTION_KEY_VERSION_INVALID ? "none" : "another answer");
  }
}

/* exists ID VERSION: as mariadbd asks it, without a buffer and with a length that nobody has set. */
static void exists(char **word) {
  unsigned length;
  printf("%s\n", encryption->get_key(number(word[1]), number(word[2]), NULL, &length) == ENCRYPTION_KEY_VERSION_INVALID ? "no" : "yes");
}

/* until ID VERSION: at most 30 seconds. */
static void until(char **word) {
  unsigned id = number(word[1]), wanted = number(word[2]);
  for (int i = 0; i < WAIT_TICKS && encryption->get_latest_key_version(id) != wanted; i++) usleep(TICK_US);
  latest(word);
}

/* ---- many threads ---- */

static struct race {
  pthread_t threads[THREADS];
  unsigned count, id;
  bool is_over;
  long asked, failed, back, changed;
  pthread_mutex_t lock;
  bool is_known[VERSIONS];
  unsigned char keys[VERSIONS][KEY_SIZE];
} race = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void count(long *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

/* Whoever has it first says what it is. */
static bool is_same(unsigned version, const unsigned char bytes[KEY_SIZE]) {
  check(version < VERSIONS, "too many versions");
  pthread_mutex_lock(&race.lock);
  if (!race.is_known[version]) memcpy(race.keys[version], bytes, KEY_SIZE);
  race.is_known[version] = true;
  bool same = memcmp(race.keys[version], bytes, KEY_SIZE) == 0;
  pthread_mutex_unlock(&race.lock);
  return same;
}

static void *ask_for_ever(void *unused) {
  (void)unused;
  unsigned before = 0;
  unsigned char bytes[KEY_SIZE] = {0};
  while (!__atomic_load_n(&race.is_over, __ATOMIC_RELAXED)) {
    unsigned length = 0, version = encryption->get_latest_key_version(race.id);
    count(&race.asked);
    if (version == ENCRYPTION_KEY_VERSION_INVALID) {
      count(&race.failed);
      continue;
    }
    if (version < before) count(&race.back);
    before = version;
    if (get(race.id, version, KEY_SIZE, bytes, &length) != 0 || length != KEY_SIZE) {
      count(&race.failed);
    } else if (!is_same(version, bytes)) {
      count(&race.changed);
    }
  }
  return NULL;
}

/* begin THREADS ID: threads ask for its newest version and the key, until `end`. */
static void begin(char **word) {
  race.count = number(word[1]) % THREADS;
  race.id = number(word[2]);
  race.asked = race.failed = race.back = race.changed = 0;
  memset(race.is_known, 0, sizeof race.is_known);
  __atomic_store_n(&race.is_over, false, __ATOMIC_RELAXED);
  for (unsigned i = 0; i < race.count; i++) check(pthread_create(&race.threads[i], NULL, ask_for_ever, NULL) == 0, "no thread");
  result(true);
}

static void end(char **word) {
  (void)word;
  __atomic_store_n(&race.is_over, true, __ATOMIC_RELAXED);
  for (unsigned i = 0; i < race.count; i++) pthread_join(race.threads[i], NULL);
  race.count = 0;
  printf("asked %s, failed %ld, went back %ld, changed %ld\n", race.asked > 0 ? "some" : "none", race.failed, race.back, race.changed);
}

/* learn THREADS ID COUNT: threads ask for the keys of so many ids at a time, each of them beginning with another one. */
static struct {
  unsigned first, count, next;
  long failed;
} lesson;

static void *ask_for_all(void *unused) {
  (void)unused;
  unsigned begin_with = __atomic_fetch_add(&lesson.next, 1, __ATOMIC_RELAXED), length;
  unsigned char bytes[KEY_SIZE];
  for (unsigned i = 0; i < lesson.count; i++) {
    unsigned id = lesson.first + (begin_with * 7 + i) % lesson.count, version = encryption->get_latest_key_version(id);
    if (version == ENCRYPTION_KEY_VERSION_INVALID || get(id, version, KEY_SIZE, bytes, &length) != 0) count(&lesson.failed);
  }
  return NULL;
}

static void learn(char **word) {
  pthread_t threads[THREADS];
  unsigned learners = number(word[1]) % THREADS;
  lesson.first = number(word[2]);
  lesson.count = number(word[3]);
  lesson.next = 0;
  lesson.failed = 0;
  for (unsigned i = 0; i < learners; i++) check(pthread_create(&threads[i], NULL, ask_for_all, NULL) == 0, "no thread");
  for (unsigned i = 0; i < learners; i++) pthread_join(threads[i], NULL);
  printf("failed %ld\n", lesson.failed);
}

/* ---- SHOW STATUS ---- */

static void print_row(const struct st_mysql_show_var *one, const char *prefix) {
  const char *text = one->value;
  switch (one->type) {
    case SHOW_CHAR: printf("row %s_%s %s\n", prefix, one->name, text); break;
    case SHOW_SLONGLONG:
    case SHOW_ULONGLONG: printf("row %s_%s %lld\n", prefix, one->name, *(long long *)one->value); break;
    default: check(false, "a status variable of a kind that mariadbd would print otherwise");
  }
}

/* The rows, in `buffer`, which must be freed. */
static struct st_mysql_show_var *rows(char **buffer, const char **prefix) {
  struct st_mysql_show_var *one = plugin->status_vars;
  static struct st_mysql_show_var shown;
  *buffer = malloc(SHOW_VAR_FUNC_BUFF_SIZE);
  shown = *one;
  check(*buffer && one->type == SHOW_FUNC && one[1].name == NULL, "not one function");
  ((mysql_show_var_func)one->value)(NULL, &shown, *buffer, NULL, SHOW_OPT_GLOBAL);
  check(shown.type == SHOW_ARRAY, "no array");
  *prefix = shown.name;
  return shown.value;
}

static void status(char **word) {
  (void)word;
  char *buffer;
  const char *prefix;
  for (struct st_mysql_show_var *row = rows(&buffer, &prefix); row->name; row++) print_row(row, prefix);
  free(buffer);
}

/* state NAME: waits until it is that, at most 30 seconds. */
static void state(char **word) {
  char is[64] = "";
  for (int i = 0; i < WAIT_TICKS && strcmp(is, word[1]) != 0; i++) {
    char *buffer;
    const char *prefix;
    struct st_mysql_show_var *row = rows(&buffer, &prefix);
    check(strcmp(row->name, "state") == 0, "the first row is not the state");
    snprintf(is, sizeof is, "%s", (const char *)row->value);
    free(buffer);
    usleep(TICK_US);
  }
  printf("state %s\n", is);
}

/* ---- the process ---- */

static void traces(char **word) {
  (void)word;
  printf("sockets %d threads %d\n", driver_sockets(), driver_threads());
}

/* SIGTERM as it is while mariadbd starts: nobody takes it before the start is over. */
static void be_told_to_end(char **word) {
  (void)word;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  result(kill(getpid(), SIGTERM) == 0);
}

static void init(char **word) { (void)word, result(plugin->init(NULL) == 0); }
static void deinit(char **word) { (void)word, result(plugin->deinit(NULL) == 0); }

static const struct driver_command commands[] = {
    {"set", 3, set},       {"init", 1, init},     {"deinit", 1, deinit},       {"latest", 2, latest}, {"key", 4, key},
    {"exists", 3, exists}, {"until", 3, until},   {"begin", 3, begin},         {"end", 1, end},       {"learn", 4, learn},
    {"status", 1, status}, {"state", 2, state},   {"traces", 1, traces},       {"term", 1, be_told_to_end}, {NULL, 0, NULL},
};

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  open_plugin(argv[1]);
  set_defaults();
  driver_run(commands);
  int closed = dlclose(library);
  while (text_count > 0) free(texts[--text_count]);
  return closed == 0 ? 0 : 4;
}
