/* SPDX-License-Identifier: MIT */
/* Compares the ABI headers of this folder with MySQL's own, member by member: place and type, and that none is missing.
 * Compiled by `make -C Sources/Clients mysql-abi-check MYSQL_INCLUDE=...` only; nothing of MySQL is needed otherwise. */
#include <stddef.h>
#include <stdint.h>

typedef struct mysql_component_t mysql_component_t;
#include <mysql/components/service.h>
#include <mysql/components/services/dynamic_loader.h>
#include <mysql/components/services/keyring_aes.h>
#include <mysql/components/services/keyring_generator.h>
#include <mysql/components/services/keyring_keys_metadata_iterator.h>
#include <mysql/components/services/keyring_load.h>
#include <mysql/components/services/keyring_metadata_query.h>
#include <mysql/components/services/keyring_reader_with_status.h>
#include <mysql/components/services/keyring_writer.h>
#include <mysql/components/services/mysql_simple_error_log.h>
#include <mysql/components/services/registry.h>

#include "mysql_component_abi.h"
#include "mysql_keyring_abi.h"

#define SAME_SIZE(theirs, ours) _Static_assert(sizeof(theirs) == sizeof(ours), "size of " #ours)
#define SAME_PLACE(theirs, ours, member) \
  _Static_assert(offsetof(theirs, member) == offsetof(ours, member), "place of " #ours "." #member)
#define SAME(theirs, ours, member)                                                                                        \
  SAME_PLACE(theirs, ours, member);                                                                                       \
  _Static_assert(__builtin_types_compatible_p(__typeof__(((theirs *)0)->member), __typeof__(((ours *)0)->member)),        \
                 "type of " #ours "." #member)


SAME_SIZE(struct mysql_component_t, struct mysql_abi_component);
SAME(struct mysql_component_t, struct mysql_abi_component, name);
/* Pointers to the structs below. */
SAME_PLACE(struct mysql_component_t, struct mysql_abi_component, provides);
SAME_PLACE(struct mysql_component_t, struct mysql_abi_component, requires_service);
SAME_PLACE(struct mysql_component_t, struct mysql_abi_component, metadata);
SAME(struct mysql_component_t, struct mysql_abi_component, init);
SAME(struct mysql_component_t, struct mysql_abi_component, deinit);

SAME_SIZE(struct mysql_service_ref_t, struct mysql_abi_provided);
SAME(struct mysql_service_ref_t, struct mysql_abi_provided, name);
SAME(struct mysql_service_ref_t, struct mysql_abi_provided, implementation);

SAME_SIZE(struct mysql_service_placeholder_ref_t, struct mysql_abi_required);
SAME(struct mysql_service_placeholder_ref_t, struct mysql_abi_required, name);
SAME(struct mysql_service_placeholder_ref_t, struct mysql_abi_required, implementation);

SAME_SIZE(struct mysql_metadata_ref_t, struct mysql_abi_metadata);
SAME(struct mysql_metadata_ref_t, struct mysql_abi_metadata, key);
SAME(struct mysql_metadata_ref_t, struct mysql_abi_metadata, value);

SAME_SIZE(struct s_mysql_registry, struct mysql_abi_registry);
SAME(struct s_mysql_registry, struct mysql_abi_registry, acquire);
SAME(struct s_mysql_registry, struct mysql_abi_registry, acquire_related);
SAME(struct s_mysql_registry, struct mysql_abi_registry, release);

SAME_SIZE(struct s_mysql_mysql_simple_error_log, struct mysql_abi_error_log);
SAME(struct s_mysql_mysql_simple_error_log, struct mysql_abi_error_log, emit);

SAME_SIZE(struct s_mysql_keyring_load, struct mysql_abi_keyring_load);
SAME(struct s_mysql_keyring_load, struct mysql_abi_keyring_load, load);

SAME_SIZE(struct s_mysql_keyring_component_status, struct mysql_abi_keyring_status);
SAME(struct s_mysql_keyring_component_status, struct mysql_abi_keyring_status, is_initialized);

SAME_SIZE(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, init);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, deinit);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, is_valid);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, next);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, get_length);
SAME(struct s_mysql_keyring_component_metadata_query, struct mysql_abi_keyring_metadata_query, get);

SAME_SIZE(struct s_mysql_keyring_reader_with_status, struct mysql_abi_keyring_reader);
SAME(struct s_mysql_keyring_reader_with_status, struct mysql_abi_keyring_reader, init);
SAME(struct s_mysql_keyring_reader_with_status, struct mysql_abi_keyring_reader, deinit);
SAME(struct s_mysql_keyring_reader_with_status, struct mysql_abi_keyring_reader, fetch_length);
SAME(struct s_mysql_keyring_reader_with_status, struct mysql_abi_keyring_reader, fetch);

SAME_SIZE(struct s_mysql_keyring_writer, struct mysql_abi_keyring_writer);
SAME(struct s_mysql_keyring_writer, struct mysql_abi_keyring_writer, store);
SAME(struct s_mysql_keyring_writer, struct mysql_abi_keyring_writer, remove);

SAME_SIZE(struct s_mysql_keyring_generator, struct mysql_abi_keyring_generator);
SAME(struct s_mysql_keyring_generator, struct mysql_abi_keyring_generator, generate);

SAME_SIZE(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, init);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, deinit);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, is_valid);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, next);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, get_length);
SAME(struct s_mysql_keyring_keys_metadata_iterator, struct mysql_abi_keyring_keys, get);

SAME_SIZE(struct s_mysql_keyring_aes, struct mysql_abi_keyring_aes);
SAME(struct s_mysql_keyring_aes, struct mysql_abi_keyring_aes, get_size);
SAME(struct s_mysql_keyring_aes, struct mysql_abi_keyring_aes, encrypt);
SAME(struct s_mysql_keyring_aes, struct mysql_abi_keyring_aes, decrypt);

_Static_assert(__builtin_types_compatible_p(mysql_service_status_t, mysql_abi_status), "status");
_Static_assert(__builtin_types_compatible_p(my_h_service, mysql_abi_service), "handle of a service");
_Static_assert((int)MYSQL_ABI_SYSTEM == MYSQL_ERROR_LOG_SEVERITY_SYSTEM, "severity");
_Static_assert((int)MYSQL_ABI_ERROR == MYSQL_ERROR_LOG_SEVERITY_ERROR, "severity");
_Static_assert((int)MYSQL_ABI_WARNING == MYSQL_ERROR_LOG_SEVERITY_WARNING, "severity");
_Static_assert((int)MYSQL_ABI_INFORMATION == MYSQL_ERROR_LOG_SEVERITY_INFORMATION, "severity");
