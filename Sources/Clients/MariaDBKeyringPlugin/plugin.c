/* SPDX-License-Identifier: MIT */
/* What MariaDB sees: the description, the variables, SHOW STATUS, and the two questions. */
#include <stdio.h>
#include <string.h>

#include <mysql/plugin_encryption.h>

#include "plugin.h"

/* ---- variables ---- */

enum { OPTION = PLUGIN_VAR_READONLY | PLUGIN_VAR_RQCMDARG };

static MYSQL_SYSVAR_STR(servers, plugin_settings.servers, OPTION,
                        "Where keyringd listens: host:port, several separated by commas", NULL, NULL, "");
static MYSQL_SYSVAR_STR(certificate, plugin_settings.certificate, OPTION,
                        "PEM file of this instance's certificate; a renewed one is taken without a restart", NULL, NULL, "");
static MYSQL_SYSVAR_STR(key, plugin_settings.key, OPTION,
                        "PEM file of the certificate's private key, accessible to the server's user alone", NULL, NULL, "");
static MYSQL_SYSVAR_STR(ca, plugin_settings.ca, OPTION, "PEM file of the CA of keyringd's certificate", NULL, NULL, "");

static const char *scope_names[] = {"instance", "shared", NULL};
static TYPELIB scope_type = {2, "scope", scope_names, NULL};
static unsigned long scope;
static MYSQL_SYSVAR_ENUM(scope, scope, OPTION,
                         "Whose keys: this instance's own ones, or those that all instances of the tenant share", NULL, NULL, 0,
                         &scope_type);
static MYSQL_SYSVAR_STR(key_prefix, plugin_settings.key_prefix, OPTION,
                        "Encryption key id N is the key PREFIX followed by N", NULL, NULL, "mariadb/");
static MYSQL_SYSVAR_UINT(timeout, plugin_settings.timeout_seconds, OPTION,
                         "Seconds after which an unanswered call to keyringd has failed", NULL, NULL, 5, 1, 600, 0);
static MYSQL_SYSVAR_UINT(connect_timeout, plugin_settings.connect_timeout_seconds, OPTION,
                         "Seconds, of the timeout, for the connection to one server", NULL, NULL, 2, 1, 600, 0);
static MYSQL_SYSVAR_UINT(refresh, plugin_settings.refresh_seconds, OPTION,
                         "Seconds between two looks for newer versions of the keys in use", NULL, NULL, 60, 1, 86400, 0);
static MYSQL_SYSVAR_UINT(wait, plugin_settings.wait_seconds, OPTION,
                         "Seconds for which a start waits for a keyringd that cannot be reached, before it fails", NULL, NULL,
                         10, 0, 3600, 0);
static MYSQL_SYSVAR_BOOL(create, plugin_settings.create, PLUGIN_VAR_READONLY | PLUGIN_VAR_OPCMDARG,
                         "Make a key (AES, 32 bytes) that is asked for and not in the keyring. For the first start of a new server",
                         NULL, NULL, 0);
static MYSQL_SYSVAR_BOOL(preload, plugin_settings.preload, PLUGIN_VAR_READONLY | PLUGIN_VAR_OPCMDARG,
                         "Fetch all keys of the prefix at the start, so that no table needs keyringd when it is opened later", NULL,
                         NULL, 1);
static MYSQL_SYSVAR_BOOL(allow_unlocked_memory, plugin_settings.allow_unlocked_memory,
                         PLUGIN_VAR_READONLY | PLUGIN_VAR_OPCMDARG,
                         "Go on where memory cannot be locked; keys may then reach the swap", NULL, NULL, 0);

static struct st_mysql_sys_var *variables[] = {
    MYSQL_SYSVAR(servers), MYSQL_SYSVAR(certificate), MYSQL_SYSVAR(key),
    MYSQL_SYSVAR(ca),      MYSQL_SYSVAR(scope),       MYSQL_SYSVAR(key_prefix),
    MYSQL_SYSVAR(timeout), MYSQL_SYSVAR(connect_timeout), MYSQL_SYSVAR(refresh),
    MYSQL_SYSVAR(wait),    MYSQL_SYSVAR(create),      MYSQL_SYSVAR(preload),
    MYSQL_SYSVAR(allow_unlocked_memory), NULL,
};

/* ---- SHOW STATUS ---- */

/* What MariaDB's buffer holds during one SHOW STATUS. */
struct shown {
  struct plugin_state state;
  char tenant[64], instance[64];
  long long keys, versions;
  struct st_mysql_show_var variables[10];
};
_Static_assert(sizeof(struct shown) <= SHOW_VAR_FUNC_BUFF_SIZE, "what is shown fits into MariaDB's buffer");

/* Keyring_key_management_state and so on; MariaDB puts the names together. */
static int show(MYSQL_THD thd, struct st_mysql_show_var *variable, void *buffer, struct system_status_var *status,
                enum enum_var_type type) {
  (void)thd, (void)status, (void)type;
  struct shown *shown = buffer;
  unsigned keys, versions;
  plugin_state_read(&shown->state);
  plugin_memory_count(&keys, &versions);
  shown->keys = keys;
  shown->versions = versions;
  snprintf(shown->tenant, sizeof shown->tenant, "%s", plugin_keyring ? keyring_tenant(plugin_keyring) : "");
  snprintf(shown->instance, sizeof shown->instance, "%s", plugin_keyring ? keyring_instance(plugin_keyring) : "");
  const struct st_mysql_show_var now[] = {
      {"state", shown->state.state, SHOW_CHAR},
      {"tenant", shown->tenant, SHOW_CHAR},
      {"instance", shown->instance, SHOW_CHAR},
      {"keys", &shown->keys, SHOW_SLONGLONG},
      {"versions", &shown->versions, SHOW_SLONGLONG},
      {"last_refresh_age", &shown->state.last_refresh_age, SHOW_SLONGLONG},
      {"failures", &shown->state.failures, SHOW_ULONGLONG},
      {"last_error", shown->state.last_error, SHOW_CHAR},
      {"last_error_age", &shown->state.last_error_age, SHOW_SLONGLONG},
      {NULL, NULL, SHOW_UNDEF},
  };
  _Static_assert(sizeof now == sizeof shown->variables, "every variable has its place");
  memcpy(shown->variables, now, sizeof now);
  variable->type = SHOW_ARRAY;
  variable->value = shown->variables;
  return 0;
}

static struct st_mysql_show_var shown_variables[] = {
    {"Keyring_key_management", (void *)show, SHOW_FUNC},
    {NULL, NULL, SHOW_UNDEF},
};

/* ---- the plugin ---- */

static int init(void *unused) {
  (void)unused;
  plugin_settings.scope = scope_names[scope];
  return plugin_start() ? 0 : 1;
}

static int deinit(void *unused) {
  (void)unused;
  plugin_stop();
  return 0;
}

/* The five functions of a cipher are not given: the server's own AES is used. */
static struct st_mariadb_encryption descriptor = {
    .interface_version = MariaDB_ENCRYPTION_INTERFACE_VERSION,
    .get_latest_key_version = plugin_latest_key_version,
    .get_key = plugin_get_key,
};

_Static_assert(PLUGIN_VERSION_INVALID == ENCRYPTION_KEY_VERSION_INVALID, "as MariaDB");
_Static_assert((int)PLUGIN_BUFFER_TOO_SMALL == (int)ENCRYPTION_KEY_BUFFER_TOO_SMALL, "as MariaDB");
_Static_assert((int)PLUGIN_KEY_ID_SYSTEM == (int)ENCRYPTION_KEY_SYSTEM_DATA, "as MariaDB");

/* What mariadbd looks for; -fvisibility=hidden is for the rest. */
#pragma GCC visibility push(default)
maria_declare_plugin(keyring_key_management){
    MariaDB_ENCRYPTION_PLUGIN,
    &descriptor,
    "keyring_key_management",
    "the keyring authors",
    "Encryption keys from keyringd",
    PLUGIN_LICENSE_GPL,
    init,
    deinit,
    0x0100,
    shown_variables,
    variables,
    "1.0",
    MariaDB_PLUGIN_MATURITY_STABLE,
} maria_declare_plugin_end;
#pragma GCC visibility pop
