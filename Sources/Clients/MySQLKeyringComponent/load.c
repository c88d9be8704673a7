/* SPDX-License-Identifier: MIT */
/* load(): reads the configuration and tries it. mysqld calls it at its start, as root, before it forks and with SIGPIPE at its
 * default: so it leaves no connection behind (the first call makes one) and no thread. It calls it again for ALTER INSTANCE
 * RELOAD KEYRING while readers may be at work, and with everybody who wants a key waiting. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "component.h"

enum { PAUSE_MS = 250 };

static bool loaded_before; /* RELOAD may be at work in two sessions */

void component_load_reset(void) { __atomic_store_n(&loaded_before, false, __ATOMIC_RELAXED); }

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t milliseconds) {
  struct timespec rest = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000};
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) continue;
}

/* Asks for a key that nobody has. A server that does not know us and a locked tenant say so here rather than when InnoDB asks
 * for its master key. (A KMS that refuses does not: no key is opened.) */
static keyring_status probe(struct component_link *link, keyring_error *error) {
  keyring_name name = component_key_name(COMPONENT_NAME " probe", NULL);
  keyring_info info;
  bool found;
  return keyring_describe(link->keyring, &name, 0, &found, &info, error);
}

static keyring_status prove(struct component_link *link, uint64_t wait_ms, keyring_error *error) {
  uint64_t end = now_ms() + wait_ms;
  for (;;) {
    keyring_status status = probe(link, error);
    if (status == KEYRING_OK || !keyring_status_is_passing(status) || now_ms() + PAUSE_MS >= end) return status;
    pause_ms(PAUSE_MS);
  }
}

static bool can_open(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file >= 0) close(file);
  return file >= 0;
}

/* Every later connection reads the files anew, as the user whom the data directory belongs to; at the start this is still root.
 * setfsuid is of this thread and takes root's power over files along until it is set back. */
static void warn_of_unreadable(const struct component_configuration *configuration, const char *instance_path) {
  struct stat status;
  if (geteuid() != 0 || !instance_path || stat(instance_path, &status) != 0 || status.st_uid == 0) return;
  const char *paths[4] = {configuration->files[0], configuration->files[1], configuration->files[2], configuration->path};
  bool readable[4];
  setfsgid(status.st_gid);
  setfsuid(status.st_uid);
  for (int i = 0; i < 4; i++) readable[i] = can_open(paths[i]);
  setfsuid(0);
  setfsgid(getegid());
  for (int i = 0; i < 4; i++) {
    if (readable[i]) continue;
    component_log(MYSQL_ABI_WARNING,
                  "keyring: the user whom the data directory belongs to (uid %u) cannot read %s; "
                  "mysqld reads it again later, as that user",
                  (unsigned)status.st_uid, paths[i]);
  }
}

/* The configuration's link; NULL: logged why not. */
static struct component_link *open_configured(const char *component_path, const char *instance_path) {
  struct component_configuration configuration;
  char reason[COMPONENT_REASON_SIZE];
  if (!component_configuration_read(component_path, instance_path, &configuration, reason)) {
    component_log(MYSQL_ABI_ERROR, "keyring: BAD_CONFIGURATION: %s", reason);
    return NULL;
  }
  warn_of_unreadable(&configuration, instance_path);
  char path[sizeof configuration.path];
  memcpy(path, configuration.path, sizeof path);
  keyring_error error = {0};
  struct component_link *link = component_link_open(&configuration, &error);
  if (!link) component_log(MYSQL_ABI_ERROR, "%s (load, configuration %s)", error.message, path);
  return link;
}

/* The old link stays in force where the new one does not work and the old one has ever worked. One that has not is worth less
 * than the newest configuration: later calls reconnect by themselves. */
static mysql_abi_status settle(struct component_link *link, keyring_status status, const keyring_error *error) {
  struct component_link *old = component_link_peek();
  if (status == KEYRING_OK) {
    component_succeeded(link);
    component_link_install(link);
  } else if (old && component_link_is_proven(old)) {
    component_log(MYSQL_ABI_ERROR, "%s (load, configuration %s; the one loaded before stays in force)", error->message,
                  link->configuration.path);
    component_link_release(link);
  } else {
    /* Nobody else knows it yet. Installed, it may be replaced, and freed, before the failure is noted. */
    link->references++;
    component_link_install(link);
    component_failed(link, "load", NULL, NULL, error);
    component_link_release(link);
  }
  component_link_release(old);
  return status == KEYRING_OK ? 0 : 1;
}

static mysql_abi_status load(const char *component_path, const char *instance_path) {
  bool again = __atomic_exchange_n(&loaded_before, true, __ATOMIC_RELAXED);
  struct component_link *link = open_configured(component_path, instance_path);
  if (!link) return 1;
  keyring_error error = {0};
  /* RELOAD does not wait: nobody gets a key while it runs. */
  keyring_status status = prove(link, again ? 0 : link->configuration.load_wait_ms, &error);
  keyring_disconnect(link->keyring);
  if (status == KEYRING_OK) {
    component_log(MYSQL_ABI_INFORMATION, "keyring %s, tenant %s, instance %s: configuration %s is in force",
                  link->configuration.servers, keyring_tenant(link->keyring), keyring_instance(link->keyring),
                  link->configuration.path);
  }
  return settle(link, status, &error);
}

struct mysql_abi_keyring_load component_load_service = {load};
