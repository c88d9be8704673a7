/* SPDX-License-Identifier: MIT */
/* Finds and reads the configuration file of a component, as MySQL's own keyring components find theirs: beside the shared object or,
 * where that file is {"read_local_config": true}, in the data directory. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "configuration.h"

enum { FILE_SIZE_MAX = 65536 };

static bool fail(char reason[COMPONENT_REASON_SIZE], const char *path, const char *what) {
  snprintf(reason, COMPONENT_REASON_SIZE, "%.511s: %.480s", path, what);
  return false;
}

static void fail_to_find(char reason[COMPONENT_REASON_SIZE], const char *folder) {
  snprintf(reason, COMPONENT_REASON_SIZE, "%.511s: no %s.cnf there", folder, component_dialect.name);
}

/* MySQL gives folders with a '/' at the end, mysql_migrate_keyring without. */
static bool path_in(const char *folder, char *path, size_t size) {
  size_t length = strlen(folder);
  const char *slash = length && folder[length - 1] == '/' ? "" : "/";
  int used = snprintf(path, size, "%s%s%s.cnf", folder, slash, component_dialect.name);
  return used > 0 && (size_t)used < size;
}

/* The folder of `path`, which is absolute even where mysqld was given a relative one: RELOAD KEYRING runs in another
 * directory. */
static bool make_absolute(char *path, size_t size) {
  if (path[0] == '/') return true;
  char *whole = realpath(path, NULL);
  if (!whole) return false;
  bool fits = strlen(whole) < size;
  if (fits) memcpy(path, whole, strlen(whole) + 1);
  free(whole);
  return fits;
}

static ssize_t read_whole(int file, char *buffer, size_t size) {
  size_t used = 0;
  while (used < size) {
    ssize_t count = read(file, buffer + used, size - used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) break;
    used += (size_t)count;
  }
  return (ssize_t)used;
}

/* Who can write this file can have the keys stored where they like (`servers`, `ca`): only its owner may. */
static bool check(int file, const char *path, char reason[COMPONENT_REASON_SIZE]) {
  struct stat status;
  if (fstat(file, &status) != 0) return fail(reason, path, strerror(errno));
  if (!S_ISREG(status.st_mode)) return fail(reason, path, "not a file");
  if (status.st_mode & (S_IWGRP | S_IWOTH)) return fail(reason, path, "its group or others may write it; chmod go-w");
  return true;
}

static json_t *parse(const char *path, char reason[COMPONENT_REASON_SIZE]) {
  /* Not to hang on a FIFO. */
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    fail(reason, path, strerror(errno));
    return NULL;
  }
  json_t *root = NULL;
  char *text = NULL;
  if (!check(file, path, reason)) goto end;
  text = malloc(FILE_SIZE_MAX + 1);
  if (!text) {
    fail(reason, path, "no memory");
    goto end;
  }
  ssize_t length = read_whole(file, text, FILE_SIZE_MAX + 1);
  if (length < 0 || length > FILE_SIZE_MAX) {
    fail(reason, path, length < 0 ? strerror(errno) : "longer than 64 KiB");
    goto end;
  }
  json_error_t error;
  root = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
  if (!root) {
    snprintf(reason, COMPONENT_REASON_SIZE, "%.511s: not JSON, line %d: %.200s", path, error.line, error.text);
  } else if (!json_is_object(root)) {
    fail(reason, path, "not a JSON object");
    json_decref(root);
    root = NULL;
  }
end:
  free(text);
  close(file);
  return root;
}

static bool points_to_data_directory(const json_t *root) { return json_is_true(json_object_get(root, "read_local_config")); }

/* The file that holds the settings; `path` (of size 512) becomes its name. */
static json_t *find(const char *component_path, const char *instance_path, char *path, size_t size,
                    char reason[COMPONENT_REASON_SIZE]) {
  if (!component_path || !path_in(component_path, path, size) || !make_absolute(path, size)) {
    fail_to_find(reason, component_path ? component_path : "(no folder)");
    return NULL;
  }
  json_t *root = parse(path, reason);
  if (!root || !points_to_data_directory(root)) return root;
  bool alone = json_object_size(root) == 1;
  json_decref(root);
  if (!alone) {
    fail(reason, path, "nothing may stand beside \"read_local_config\": true");
    return NULL;
  }
  if (!instance_path || !*instance_path) {
    fail(reason, path, "says that the settings are in the data directory, and no data directory is known here");
    return NULL;
  }
  if (!path_in(instance_path, path, size) || !make_absolute(path, size)) {
    fail_to_find(reason, instance_path);
    return NULL;
  }
  root = parse(path, reason);
  if (root && points_to_data_directory(root)) {
    fail(reason, path, "is the one in the data directory: \"read_local_config\" does not belong here");
    json_decref(root);
    return NULL;
  }
  return root;
}

bool component_configuration_read(const char *component_path, const char *instance_path,
                                  struct component_configuration *configuration, char reason[COMPONENT_REASON_SIZE]) {
  memset(configuration, 0, sizeof *configuration);
  json_t *root = find(component_path, instance_path, configuration->path, sizeof configuration->path, reason);
  if (!root) return false;
  char folder[sizeof configuration->path];
  memcpy(folder, configuration->path, sizeof folder);
  char *slash = strrchr(folder, '/');
  if (slash) *slash = 0;
  configuration->config = keyring_config_new();
  char what[COMPONENT_REASON_SIZE] = "no memory";
  bool good = configuration->config && component_settings_apply(root, folder, configuration, what);
  if (!good) {
    fail(reason, configuration->path, what);
    component_configuration_free(configuration);
  }
  json_decref(root);
  return good;
}

void component_configuration_free(struct component_configuration *configuration) {
  keyring_config_free(configuration->config);
  configuration->config = NULL;
}
