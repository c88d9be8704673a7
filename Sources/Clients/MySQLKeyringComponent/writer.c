/* SPDX-License-Identifier: MIT */
/* keyring_writer and keyring_generator. 0 is said when the server has it on disk. To remove what is not there fails, as it
 * does in MySQL's own components, and to store or generate what is there leaves it as it is. */
#include "component.h"

static mysql_abi_status ended(struct component_link *link, keyring_status status, const char *operation, const char *data_id,
                              const char *auth_id, const keyring_error *error) {
  if (status == KEYRING_OK) {
    component_succeeded(link);
  } else {
    component_failed(link, operation, data_id, auth_id, error);
  }
  component_link_release(link);
  return status == KEYRING_OK ? 0 : 1;
}

static mysql_abi_status store(const char *data_id, const char *auth_id, const unsigned char *data, size_t data_size,
                              const char *data_type) {
  if (!data_id || !*data_id || !data || !data_type) return 1;
  struct component_link *link = component_link_acquire("store");
  if (!link) return 1;
  keyring_name name = component_key_name(data_id, auth_id);
  keyring_error error = {0};
  keyring_status status = keyring_store(link->keyring, &name, data_type, data, data_size, &error);
  return ended(link, status, "store", data_id, auth_id, &error);
}

static mysql_abi_status remove_key(const char *data_id, const char *auth_id) {
  if (!data_id || !*data_id) return 1;
  struct component_link *link = component_link_acquire("remove");
  if (!link) return 1;
  keyring_name name = component_key_name(data_id, auth_id);
  keyring_error error = {0};
  keyring_status status = keyring_remove(link->keyring, &name, &error);
  return ended(link, status, "remove", data_id, auth_id, &error);
}

static mysql_abi_status generate(const char *data_id, const char *auth_id, const char *data_type, size_t data_size) {
  if (!data_id || !*data_id || !data_type) return 1;
  struct component_link *link = component_link_acquire("generate");
  if (!link) return 1;
  if (!component_master_key_may_be_made(link, data_id, auth_id)) {
    component_link_release(link);
    return 1;
  }
  keyring_name name = component_key_name(data_id, auth_id);
  keyring_error error = {0};
  keyring_status status = keyring_generate(link->keyring, &name, data_type, data_size, &error);
  return ended(link, status, "generate", data_id, auth_id, &error);
}

struct mysql_abi_keyring_writer component_writer_service = {store, remove_key};
struct mysql_abi_keyring_generator component_generator_service = {generate};
