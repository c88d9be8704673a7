/* SPDX-License-Identifier: MIT */
/* What MySQL (8.0.24 to 9.7) asks of a component's shared object, as C structs of our own: no header of MySQL is needed to
 * build. abi_check.c compares every member with MySQL's headers (make mysql-abi-check).
 *
 * A component exports one function, `list_components`, which returns its description. A service is a struct of function
 * pointers that is registered under `service.component`; whoever wants it asks the registry by that name, or by `service`
 * alone for the default one. Every function returns int: 0 is success, also where MySQL's documentation says "false".
 *
 * Acquire and release: a component that names a service in `requires` gets it before init() and must not release it; a
 * component of a manifest must require `registry` only, since nothing else is there in mysql_migrate_keyring. Everything else
 * is acquired when it is needed, never in init() or deinit() (the registry is locked there), and released: a service whose
 * references are not given back keeps its component loaded for ever. */
#ifndef MYSQL_COMPONENT_ABI_H
#define MYSQL_COMPONENT_ABI_H

typedef int mysql_abi_status;

/* A service of the registry: cast to a pointer to the service's struct. */
typedef struct my_h_service_imp *mysql_abi_service;

/* `name` is `service.component`; the list ends with {NULL, NULL}. */
struct mysql_abi_provided {
  const char *name;
  void *implementation;
};

/* `name` is that of a service; MySQL writes the service's address into `*implementation` before init(). Ends with {NULL,
 * NULL}. */
struct mysql_abi_required {
  const char *name;
  void **implementation;
};

/* `mysql.author`, `mysql.license` and others; ends with {NULL, NULL}. */
struct mysql_abi_metadata {
  const char *key;
  const char *value;
};

struct mysql_abi_component {
  const char *name; /* without `.so`; must not contain `mysql_server` */
  struct mysql_abi_provided *provides;
  struct mysql_abi_required *requires_service;
  struct mysql_abi_metadata *metadata;
  mysql_abi_status (*init)(void);
  mysql_abi_status (*deinit)(void);
};

/* The one symbol that a component exports. */
struct mysql_abi_component *list_components(void);

/* `registry` */
struct mysql_abi_registry {
  mysql_abi_status (*acquire)(const char *service_name, mysql_abi_service *service);
  mysql_abi_status (*acquire_related)(const char *service_name, mysql_abi_service service, mysql_abi_service *related);
  mysql_abi_status (*release)(mysql_abi_service service);
};

enum mysql_abi_severity {
  MYSQL_ABI_SYSTEM = 0,
  MYSQL_ABI_ERROR = 1,
  MYSQL_ABI_WARNING = 2,
  MYSQL_ABI_INFORMATION = 3 /* printed with log_error_verbosity=3 only */
};

/* ER_LOG_PRINTF_MSG: the number of an error picks the template that is printed, and this one's template is
 * `Component reported: '%s'`. */
#define MYSQL_ABI_LOG_MESSAGE 11071

/* `mysql_simple_error_log`: a line of the server's error log. `subsystem` is cut at 12 characters. */
struct mysql_abi_error_log {
  mysql_abi_status (*emit)(const char *subsystem, const char *file, unsigned long line, int severity, int error_id, ...);
};

#endif
