/* SPDX-License-Identifier: MIT */
/* The eight services that MySQL (8.0.24 to 9.7) asks of a keyring component; see mysql_component_abi.h. The pointers to
 * incomplete structs are the component's own objects. Strings that go in are NUL-terminated; `auth_id` NULL or `` is the
 * server itself. */
#ifndef MYSQL_KEYRING_ABI_H
#define MYSQL_KEYRING_ABI_H

#include <stddef.h>

#include "mysql_component_abi.h"

typedef struct my_h_keyring_reader_object_imp *mysql_abi_reader;
typedef struct my_h_keyring_keys_metadata_iterator_imp *mysql_abi_keys_iterator;
typedef struct my_h_keyring_component_metadata_iterator_imp *mysql_abi_metadata_iterator;

/* `keyring_load`: also on ALTER INSTANCE RELOAD KEYRING. `component_path` is the folder of the shared object, `instance_path` the
 * data directory; both end with '/' from mysqld and without from mysql_migrate_keyring, where the second is NULL. */
struct mysql_abi_keyring_load {
  mysql_abi_status (*load)(const char *component_path, const char *instance_path);
};

/* `keyring_component_status`: not 0 for yes. */
struct mysql_abi_keyring_status {
  mysql_abi_status (*is_initialized)(void);
};

/* `keyring_component_metadata_query`: rows of performance_schema.keyring_component_status. The lengths count the NUL. is_valid is
 * not 0 for yes. */
struct mysql_abi_keyring_metadata_query {
  mysql_abi_status (*init)(mysql_abi_metadata_iterator *iterator);
  mysql_abi_status (*deinit)(mysql_abi_metadata_iterator iterator);
  mysql_abi_status (*is_valid)(mysql_abi_metadata_iterator iterator);
  mysql_abi_status (*next)(mysql_abi_metadata_iterator iterator);
  mysql_abi_status (*get_length)(mysql_abi_metadata_iterator iterator, size_t *key_size, size_t *value_size);
  mysql_abi_status (*get)(mysql_abi_metadata_iterator iterator, char *key, size_t key_size, char *value, size_t value_size);
};

/* `keyring_reader_with_status`: init has three answers: not 0 (cannot tell), 0 with `*reader` NULL (absent), 0 with a reader. The
 * type's buffer has exactly the length that fetch_length said: there is no room for a NUL. */
struct mysql_abi_keyring_reader {
  mysql_abi_status (*init)(const char *data_id, const char *auth_id, mysql_abi_reader *reader);
  mysql_abi_status (*deinit)(mysql_abi_reader reader);
  mysql_abi_status (*fetch_length)(mysql_abi_reader reader, size_t *data_size, size_t *type_size);
  mysql_abi_status (*fetch)(mysql_abi_reader reader, unsigned char *data, size_t data_capacity, size_t *data_size, char *type,
                            size_t type_capacity, size_t *type_size);
};

/* `keyring_writer` */
struct mysql_abi_keyring_writer {
  mysql_abi_status (*store)(const char *data_id, const char *auth_id, const unsigned char *data, size_t data_size,
                            const char *data_type);
  mysql_abi_status (*remove)(const char *data_id, const char *auth_id);
};

/* `keyring_generator` */
struct mysql_abi_keyring_generator {
  mysql_abi_status (*generate)(const char *data_id, const char *auth_id, const char *data_type, size_t data_size);
};

/* `keyring_keys_metadata_iterator`: rows of performance_schema.keyring_keys. is_valid is not 0 for yes; the buffers of get have
 * room for a NUL. */
struct mysql_abi_keyring_keys {
  mysql_abi_status (*init)(mysql_abi_keys_iterator *iterator);
  mysql_abi_status (*deinit)(mysql_abi_keys_iterator iterator);
  mysql_abi_status (*is_valid)(mysql_abi_keys_iterator iterator);
  mysql_abi_status (*next)(mysql_abi_keys_iterator iterator);
  mysql_abi_status (*get_length)(mysql_abi_keys_iterator iterator, size_t *data_id_length, size_t *auth_id_length);
  mysql_abi_status (*get)(mysql_abi_keys_iterator iterator, char *data_id, size_t data_id_size, char *auth_id,
                          size_t auth_id_size);
};

/* `keyring_aes`: `block_size` is the key's length in bits, 256. */
struct mysql_abi_keyring_aes {
  mysql_abi_status (*get_size)(size_t input_length, const char *mode, size_t block_size, size_t *out_size);
  mysql_abi_status (*encrypt)(const char *data_id, const char *auth_id, const char *mode, size_t block_size,
                              const unsigned char *iv, int padding, const unsigned char *data, size_t data_size,
                              unsigned char *out, size_t out_capacity, size_t *out_size);
  mysql_abi_status (*decrypt)(const char *data_id, const char *auth_id, const char *mode, size_t block_size,
                              const unsigned char *iv, int padding, const unsigned char *data, size_t data_size,
                              unsigned char *out, size_t out_capacity, size_t *out_size);
};

#endif
