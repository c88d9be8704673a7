/* SPDX-License-Identifier: MIT */
/* component_keyring_service_admin.so: what INSTALL COMPONENT finds, and the order in which its parts come and go. */
#include "admin.h"

struct mysql_abi_registry *admin_registry;
struct mysql_abi_functions *admin_mysql_functions;
struct mysql_abi_function_metadata *admin_mysql_metadata;
struct mysql_abi_variables *admin_mysql_variables;
struct mysql_abi_variables_removal *admin_mysql_removal;
struct mysql_abi_variable_reader *admin_mysql_reader;
struct mysql_abi_current_session *admin_mysql_current;
struct mysql_abi_session_attributes *admin_mysql_attributes;
struct mysql_abi_session_security *admin_mysql_security;
struct mysql_abi_security_options *admin_mysql_options;
struct mysql_abi_privileges *admin_mysql_privileges;
struct mysql_abi_grants *admin_mysql_grants;
struct mysql_abi_error *admin_mysql_error;
struct mysql_abi_warning *admin_mysql_warning;
struct mysql_abi_error_log *admin_mysql_log;
struct mysql_abi_string_factory *admin_mysql_strings;
struct mysql_abi_string_converter *admin_mysql_converter;

/* MySQL fills these before init() and counts the references, so that init() and deinit(), where the registry is locked, have
 * them too. */
static struct mysql_abi_required required[] = {
    {"registry", (void **)&admin_registry},
    {"udf_registration", (void **)&admin_mysql_functions},
    {"mysql_udf_metadata", (void **)&admin_mysql_metadata},
    {"component_sys_variable_register", (void **)&admin_mysql_variables},
    {"component_sys_variable_unregister", (void **)&admin_mysql_removal},
    {"mysql_system_variable_reader", (void **)&admin_mysql_reader},
    {"mysql_current_thread_reader", (void **)&admin_mysql_current},
    {"mysql_thd_attributes", (void **)&admin_mysql_attributes},
    {"mysql_thd_security_context", (void **)&admin_mysql_security},
    {"mysql_security_context_options", (void **)&admin_mysql_options},
    {"dynamic_privilege_register", (void **)&admin_mysql_privileges},
    {"global_grants_check", (void **)&admin_mysql_grants},
    {"mysql_runtime_error", (void **)&admin_mysql_error},
    {"mysql_runtime_warning", (void **)&admin_mysql_warning},
    {"mysql_simple_error_log", (void **)&admin_mysql_log},
    {"mysql_string_factory", (void **)&admin_mysql_strings},
    {"mysql_string_converter", (void **)&admin_mysql_converter},
    {NULL, NULL},
};

static struct mysql_abi_provided provided[] = {{NULL, NULL}};

static struct mysql_abi_metadata metadata[] = {
    {"mysql.author", "the keyring authors"},
    {"mysql.license", "MIT"},
    {NULL, NULL},
};

/* rotate-keys re-encrypts every key of the tenant: it may take its time. */
static const struct component_setting settings[] = {
    {"servers", SETTING_SERVERS, NULL},
    {"certificate", SETTING_FILE, NULL},
    {"key", SETTING_FILE, NULL},
    {"ca", SETTING_FILE, NULL},
    {"timeout_ms", SETTING_NUMBER, "60000"},
    {"connect_timeout_ms", SETTING_NUMBER, NULL},
    {"allow_unlocked_memory", SETTING_BOOLEAN, NULL},
    {NULL, SETTING_END, NULL},
};

const struct component_dialect component_dialect = {ADMIN_NAME, settings};

/* A privilege that is granted stays granted, and means something again with the next INSTALL. */
static bool privilege_add(void) {
  return admin_mysql_privileges->add(ADMIN_PRIVILEGE, sizeof ADMIN_PRIVILEGE - 1) == 0;
}

static bool privilege_remove(void) {
  return admin_mysql_privileges->remove(ADMIN_PRIVILEGE, sizeof ADMIN_PRIVILEGE - 1) == 0;
}

static mysql_abi_status fail(const char *what) {
  admin_log(MYSQL_ABI_ERROR, "keyring: " ADMIN_NAME " is not installed: its %s cannot be registered; is there one of that name?",
            what);
  return 1;
}

static mysql_abi_status start(void) {
  if (!privilege_add()) return fail("privilege " ADMIN_PRIVILEGE);
  if (!admin_variable_add()) {
    privilege_remove();
    return fail("variable " ADMIN_VARIABLE);
  }
  if (!admin_functions_add()) {
    admin_variable_remove();
    admin_variable_forget();
    privilege_remove();
    return fail("functions");
  }
  admin_variable_begin();
  return 0;
}

/* The functions first: they are what can be in use. */
static mysql_abi_status stop(void) {
  if (!admin_functions_remove()) {
    admin_log(MYSQL_ABI_ERROR, "keyring: " ADMIN_NAME " stays installed: a statement is using one of its functions");
    return 1;
  }
  if (!admin_variable_remove()) {
    admin_log(MYSQL_ABI_ERROR, "keyring: " ADMIN_NAME " stays installed: its variable cannot be unregistered");
    admin_functions_add();
    return 1;
  }
  admin_variable_forget();
  privilege_remove();
  return 0;
}

static struct mysql_abi_component component = {ADMIN_NAME, provided, required, metadata, start, stop};

__attribute__((visibility("default"))) struct mysql_abi_component *list_components(void) { return &component; }
