/* SPDX-License-Identifier: MIT */
/* What MySQL finds in component_keyring_service.so: one exported function, the services, and nothing required but the
 * registry, so that it loads from a manifest and in mysql_migrate_keyring too. */
#include "component.h"

/* The defaults that differ from libkeyring's: a start of mysqld fetches one master key once for each encrypted tablespace. */
static const struct component_setting settings[] = {
    {"servers", SETTING_SERVERS, NULL},
    {"certificate", SETTING_FILE, NULL},
    {"key", SETTING_FILE, NULL},
    {"ca", SETTING_FILE, NULL},
    {"scope", SETTING_TEXT, "instance"},
    {"timeout_ms", SETTING_NUMBER, "5000"},
    {"connect_timeout_ms", SETTING_NUMBER, NULL},
    {"connections", SETTING_NUMBER, NULL},
    {"cache_ms", SETTING_NUMBER, "10000"},
    {"cache_outage_ms", SETTING_NUMBER, NULL},
    {"cache_keys", SETTING_NUMBER, NULL},
    {"allow_unlocked_memory", SETTING_BOOLEAN, NULL},
    {"load_wait_ms", SETTING_NUMBER, "10000"},
    {NULL, SETTING_END, NULL},
};

const struct component_dialect component_dialect = {COMPONENT_NAME, settings};

static struct mysql_abi_provided provided[] = {
    {"keyring_load." COMPONENT_NAME, &component_load_service},
    {"keyring_component_status." COMPONENT_NAME, &component_status_service},
    {"keyring_component_metadata_query." COMPONENT_NAME, &component_metadata_service},
    {"keyring_reader_with_status." COMPONENT_NAME, &component_reader_service},
    {"keyring_writer." COMPONENT_NAME, &component_writer_service},
    {"keyring_generator." COMPONENT_NAME, &component_generator_service},
    {"keyring_keys_metadata_iterator." COMPONENT_NAME, &component_keys_service},
    {"keyring_aes." COMPONENT_NAME, &component_aes_service},
    {KEYRING_SERVICE_ADMIN, &component_admin_service},
    {NULL, NULL},
};

static struct mysql_abi_required required[] = {
    {"registry", (void **)&component_registry},
    {NULL, NULL},
};

static struct mysql_abi_metadata metadata[] = {
    {"mysql.author", "the keyring authors"},
    {"mysql.license", "MIT"},
    {NULL, NULL},
};

static mysql_abi_status start(void) {
  component_load_reset();
  component_master_keys_forget();
  return 0;
}

/* A manifest's components are unloaded at shutdown: nothing of ours may stay behind, keys least of all. */
static mysql_abi_status stop(void) {
  component_link_install(NULL);
  component_registry = NULL;
  return 0;
}

static struct mysql_abi_component component = {COMPONENT_NAME, provided, required, metadata, start, stop};

__attribute__((visibility("default"))) struct mysql_abi_component *list_components(void) { return &component; }
