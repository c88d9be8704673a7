/* SPDX-License-Identifier: MIT */
/* The configuration file of a component, NAME.cnf: found and read in one way by both components of this folder, which differ
 * in the settings that they know. */
#ifndef CONFIGURATION_H
#define CONFIGURATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keyring.h"

#define COMPONENT_REASON_SIZE 1024

/* ---- what each component defines for itself ---- */

enum component_setting_kind { SETTING_END = 0, SETTING_TEXT, SETTING_FILE, SETTING_SERVERS, SETTING_NUMBER, SETTING_BOOLEAN };

/* `initial`, where not NULL, is set first: a default that differs from libkeyring's. */
struct component_setting {
  const char *name;
  enum component_setting_kind kind;
  const char *initial;
};

struct component_dialect {
  const char *name;                         /* of the component, and of its file without `.cnf` */
  const struct component_setting *settings; /* ends with SETTING_END */
};

extern const struct component_dialect component_dialect;

/* ---- configuration.c ---- */

/* What the file says, and where it is. */
struct component_configuration {
  keyring_config *config;
  char path[512];       /* of the file in force */
  char servers[1024];   /* comma-separated */
  char scope[16];
  char files[3][512];   /* certificate, key, ca; absolute */
  uint64_t timeout_ms;
  uint64_t cache_ms;
  uint64_t cache_outage_ms;
  uint64_t load_wait_ms;
};

/* Reads the configuration beside the library or, where that says so, in the data directory. False: `reason` says why, and
 * there is nothing to free. */
bool component_configuration_read(const char *component_path, const char *instance_path,
                                  struct component_configuration *configuration, char reason[COMPONENT_REASON_SIZE]);
void component_configuration_free(struct component_configuration *configuration);

/* ---- settings.c ---- */

struct json_t;

/* The members of the JSON object as settings of libkeyring; relative file names are taken from `folder`. */
bool component_settings_apply(const struct json_t *root, const char *folder, struct component_configuration *configuration,
                              char reason[COMPONENT_REASON_SIZE]);

#endif
