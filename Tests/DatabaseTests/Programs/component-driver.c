/* SPDX-License-Identifier: MIT */
/* mysqld's part for component_keyring_service.so: loads it, gives it a registry with an error log, and calls its services as commands
 * say (driver.h); `-` is NULL, `=` the empty string.
 *
 *     component-driver COMPONENT.so
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"
#include "keyring_service_private.h"
#include "mysql_keyring_abi.h"

enum { BUFFER_SIZE = 32768, READERS = 4, THREADS_MAX = 64 };

static struct mysql_abi_component *component;
static struct mysql_abi_keyring_load *loader;
static struct mysql_abi_keyring_status *status_service;
static struct mysql_abi_keyring_metadata_query *metadata;
static struct mysql_abi_keyring_reader *reader;
static struct mysql_abi_keyring_writer *writer;
static struct mysql_abi_keyring_generator *generator;
static struct mysql_abi_keyring_keys *keys;
static struct mysql_abi_keyring_aes *aes;
static struct keyring_service_admin *admin;
static mysql_abi_reader held[READERS];
static bool log_is_there = true;
static int acquired; /* services that the component has not given back */

/* ---- the registry ---- */

static mysql_abi_status emit(const char *subsystem, const char *file, unsigned long line, int severity, int error_id, ...) {
  va_list arguments;
  va_start(arguments, error_id);
  const char *text = va_arg(arguments, const char *);
  va_end(arguments);
  if (strcmp(subsystem, "Keyring") != 0 || !file || !line || error_id != MYSQL_ABI_LOG_MESSAGE) abort();
  printf("log %d %s\n", severity, text);
  return 0;
}

static struct mysql_abi_error_log error_log = {emit};

static mysql_abi_status acquire(const char *name, mysql_abi_service *service) {
  if (!log_is_there || strcmp(name, "mysql_simple_error_log") != 0) return 1;
  __atomic_add_fetch(&acquired, 1, __ATOMIC_RELAXED);
  *service = (mysql_abi_service)&error_log;
  return 0;
}

static mysql_abi_status acquire_related(const char *name, mysql_abi_service service, mysql_abi_service *related) {
  (void)name, (void)service, (void)related;
  return 1;
}

static mysql_abi_status release(mysql_abi_service service) {
  if (service != (mysql_abi_service)&error_log) abort();
  __atomic_sub_fetch(&acquired, 1, __ATOMIC_RELAXED);
  return 0;
}

static struct mysql_abi_registry registry = {acquire, acquire_related, release};

static void *service(const char *name) {
  for (struct mysql_abi_provided *p = component->provides; p->name; p++) {
    size_t length = strlen(name);
    if (strncmp(p->name, name, length) == 0 && p->name[length] == '.') return p->implementation;
  }
  fprintf(stderr, "no service %s\n", name);
  exit(3);
}

static void open_component(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    exit(3);
  }
  struct mysql_abi_component *(*list)(void);
  *(void **)&list = dlsym(library, "list_components");
  if (!list) exit(3);
  component = list();
  for (struct mysql_abi_required *r = component->requires_service; r->name; r++) {
    if (strcmp(r->name, "registry") != 0) exit(3);
    *r->implementation = &registry;
  }
  loader = service("keyring_load");
  status_service = service("keyring_component_status");
  metadata = service("keyring_component_metadata_query");
  reader = service("keyring_reader_with_status");
  writer = service("keyring_writer");
  generator = service("keyring_generator");
  keys = service("keyring_keys_metadata_iterator");
  aes = service("keyring_aes");
  admin = service("keyring_service_admin");
  if (component->init() != 0) exit(3);
}

/* ---- words ---- */

static const char *text(const char *word) { return strcmp(word, "-") == 0 ? NULL : strcmp(word, "=") == 0 ? "" : word; }

static size_t bytes(const char *word, unsigned char *buffer) {
  const char *hex = text(word);
  size_t count = 0;
  for (; hex && hex[0] && hex[1] && count < BUFFER_SIZE; hex += 2) {
    unsigned value;
    if (sscanf(hex, "%2x", &value) != 1) break;
    buffer[count++] = (unsigned char)value;
  }
  return count;
}

static void print_hex(const unsigned char *data, size_t size) {
  for (size_t i = 0; i < size; i++) printf("%02x", data[i]);
}

static void result(int failed) { printf("%s\n", failed ? "failed" : "ok"); }

/* ---- commands ---- */

/* As the server does it: buffers of exactly the lengths that were said, on the heap, where a sanitizer watches their ends. */
static void print_read(mysql_abi_reader object) {
  size_t size = 0, type_size = 0, got = 0, type_got = 0;
  if (reader->fetch_length(object, &size, &type_size)) {
    printf("no length\n");
    return;
  }
  unsigned char *data = malloc(size);
  char *type = malloc(type_size);
  if (!data || !type) abort();
  if (size > 0 && reader->fetch(object, data, size - 1, &got, type, type_size, &type_got) == 0) printf("took a short buffer\n");
  if (reader->fetch(object, data, size, &got, type, type_size, &type_got) != 0 || got != size || type_got != type_size) {
    printf("no key\n");
  } else {
    printf("found %.*s ", (int)type_size, type);
    print_hex(data, size);
    printf("\n");
  }
  free(data);
  free(type);
}

static void fetch(char **word) {
  mysql_abi_reader object = (mysql_abi_reader)word; /* must be written in any case */
  if (reader->init(text(word[1]), text(word[2]), &object)) {
    printf("error\n");
  } else if (!object) {
    printf("absent\n");
  } else {
    print_read(object);
    if (reader->deinit(object)) printf("not freed\n");
  }
}

/* recover ID OWNER: fetches until there is an answer, at most 30 seconds. */
static void recover(char **word) {
  mysql_abi_reader object = NULL;
  int failed = 1;
  for (int i = 0; i < 300 && (failed = reader->init(text(word[1]), text(word[2]), &object)) != 0; i++) usleep(100000);
  if (!failed && object) reader->deinit(object);
  printf("%s\n", failed ? "error" : object ? "found" : "absent");
}

static void hold(char **word) {
  int slot = atoi(word[1]) % READERS;
  result(reader->init(text(word[2]), text(word[3]), &held[slot]) || !held[slot]);
}

static void list_keys(char **word) {
  (void)word;
  mysql_abi_keys_iterator iterator = NULL;
  if (keys->init(&iterator)) {
    printf("error\n");
    return;
  }
  while (keys->is_valid(iterator)) {
    size_t id_size = 0, owner_size = 0;
    keys->get_length(iterator, &id_size, &owner_size);
    char *id = malloc(id_size), *owner = malloc(owner_size);
    if (!id || !owner || keys->get(iterator, id, id_size, owner, owner_size)) abort();
    printf("key %s %s\n", id, *owner ? owner : "-");
    free(id);
    free(owner);
    if (keys->next(iterator) && keys->is_valid(iterator)) abort();
  }
  if (keys->next(iterator) == 0) printf("went past the end\n");
  keys->deinit(iterator);
}

static void list_metadata(char **word) {
  (void)word;
  mysql_abi_metadata_iterator iterator = NULL;
  if (metadata->init(&iterator)) abort();
  for (; metadata->is_valid(iterator); metadata->next(iterator)) {
    size_t key_size = 0, value_size = 0;
    if (metadata->get_length(iterator, &key_size, &value_size)) abort();
    char *key = malloc(key_size), *value = malloc(value_size);
    if (!key || !value || metadata->get(iterator, key, key_size, value, value_size)) abort();
    printf("row %s %s\n", key, value);
    free(key);
    free(value);
  }
  metadata->deinit(iterator);
}

/* encrypt|decrypt ID OWNER MODE BITS PADDING IV DATA */
static void cipher(char **word) {
  static unsigned char data[BUFFER_SIZE], iv[BUFFER_SIZE];
  size_t iv_size = bytes(word[6], iv), data_size = bytes(word[7], data), size = 0, capacity = 0;
  bool encrypt = strcmp(word[0], "encrypt") == 0;
  size_t bits = (size_t)atoi(word[4]);
  if (aes->get_size(data_size, text(word[3]), bits, &capacity)) {
    printf("no size\n");
    return;
  }
  if (!encrypt) capacity = data_size;
  unsigned char *out = malloc(capacity + 1);
  if (!out) abort();
  mysql_abi_status failed = (encrypt ? aes->encrypt : aes->decrypt)(text(word[1]), text(word[2]), text(word[3]), bits,
                                                                    iv_size ? iv : NULL, atoi(word[5]), data, data_size, out,
                                                                    capacity, &size);
  printf("%s ", failed ? "failed" : "ok");
  if (!failed) print_hex(out, size);
  printf(" of %zu\n", capacity);
  free(out);
}

static void print_state(char **word) {
  struct keyring_service_state state = {.size = sizeof state};
  int failed = admin->state(&state, atoi(word[1]));
  printf("%s status=%s servers=%s tenant=%s instance=%s scope=%s server=%s failures=%llu error=%s\n", failed ? "failed" : "ok",
         state.status, state.servers, state.tenant, state.instance, state.scope, state.server,
         (unsigned long long)state.failures, state.last_error);
}

static void print_traces(char **word) {
  (void)word;
  printf("sockets %d threads %d services %d\n", driver_sockets(), driver_threads(), acquired);
}

static const char *wanted_id;
static int stop_threads;

static void *fetch_for_ever(void *good) {
  while (!__atomic_load_n(&stop_threads, __ATOMIC_RELAXED)) {
    mysql_abi_reader object = NULL;
    if (reader->init(wanted_id, NULL, &object) == 0 && object) {
      size_t size, type_size;
      if (reader->fetch_length(object, &size, &type_size) == 0) __atomic_add_fetch((long *)good, 1, __ATOMIC_RELAXED);
      reader->deinit(object);
    }
  }
  return NULL;
}

static void *load_often(void *words) {
  char **word = words;
  intptr_t failed = 0;
  for (int i = 0; i < atoi(word[3]); i++) failed += loader->load(text(word[4]), text(word[5])) != 0;
  return (void *)failed;
}

/* race THREADS ID LOADS COMPONENT_PATH INSTANCE_PATH: readers at work while two threads load the configuration so many times each. */
static void race(char **word) {
  pthread_t threads[THREADS_MAX], loading;
  int count = atoi(word[1]) % THREADS_MAX;
  void *of_other = NULL;
  long good = 0;
  wanted_id = word[2];
  __atomic_store_n(&stop_threads, 0, __ATOMIC_RELAXED);
  for (int i = 0; i < count; i++) if (pthread_create(&threads[i], NULL, fetch_for_ever, &good)) abort();
  if (pthread_create(&loading, NULL, load_often, word)) abort();
  intptr_t failed = (intptr_t)load_often(word);
  pthread_join(loading, &of_other);
  __atomic_store_n(&stop_threads, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  printf("loads failed %d, fetched %s\n", (int)(failed + (intptr_t)of_other), good > 0 ? "some" : "none");
}

/* As mysqld --daemonize does after load(): the child goes on with the commands. */
static void go_on_in_child(char **word) {
  (void)word;
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) abort();
  if (child == 0) {
    printf("child\n");
    return;
  }
  int status;
  if (waitpid(child, &status, 0) != child) abort();
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128);
}

static void load(char **word) { result(loader->load(text(word[1]), text(word[2]))); }
static void print_status(char **word) { (void)word, printf("%s\n", status_service->is_initialized() ? "yes" : "no"); }
static void generate(char **word) { result(generator->generate(text(word[1]), text(word[2]), text(word[3]), (size_t)atol(word[4]))); }
static void remove_key(char **word) { result(writer->remove(text(word[1]), text(word[2]))); }
static void without_log(char **word) { (void)word, log_is_there = false; }

/* As UNINSTALL and INSTALL would. */
static void restart(char **word) {
  (void)word;
  int failed = component->deinit();
  *component->requires_service->implementation = &registry;
  result(component->init() || failed);
}

static void store(char **word) {
  static unsigned char data[BUFFER_SIZE];
  size_t size = bytes(word[4], data);
  result(writer->store(text(word[1]), text(word[2]), data, size, text(word[3])));
}

/* fetches COUNT ID OWNER: how many of them found it. */
static void fetches(char **word) {
  int found = 0;
  for (int i = 0; i < atoi(word[1]); i++) {
    mysql_abi_reader object = NULL;
    if (reader->init(text(word[2]), text(word[3]), &object) == 0 && object) found++;
    reader->deinit(object);
  }
  printf("found %d\n", found);
}

static void read_held(char **word) { print_read(held[atoi(word[1]) % READERS]); }
static void let_go(char **word) {
  int slot = atoi(word[1]) % READERS;
  result(reader->deinit(held[slot]));
  held[slot] = NULL;
}

static const struct driver_command commands[] = {
    {"load", 3, load},           {"status", 1, print_status}, {"metadata", 1, list_metadata}, {"fetch", 3, fetch},
    {"hold", 4, hold},           {"held", 2, read_held},      {"release", 2, let_go},         {"store", 5, store},
    {"generate", 5, generate},   {"remove", 3, remove_key},   {"keys", 1, list_keys},         {"encrypt", 8, cipher},
    {"decrypt", 8, cipher},      {"state", 2, print_state},   {"traces", 1, print_traces},    {"race", 6, race},
    {"fork", 1, go_on_in_child}, {"nolog", 1, without_log},   {"restart", 1, restart},
    {"fetches", 4, fetches},     {"recover", 3, recover},     {NULL, 0, NULL},
};

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  open_component(argv[1]);
  driver_run(commands);
  int failed = component->deinit();
  if (acquired != 0 || failed) return 4;
  return 0;
}
