/* SPDX-License-Identifier: MIT */
/* The fetch of a key, for the reader and for AES. InnoDB asks once for each encrypted tablespace, one after the other, and does not
 * hear SIGTERM meanwhile: that N of them do not wait for N deadlines where no server answers is libkeyring's doing, which remembers
 * an outage. */
#include "component.h"

bool component_fetch(const char *operation, const char *data_id, const char *auth_id, struct component_link **link,
                     keyring_key **key) {
  *key = NULL;
  *link = component_link_acquire(operation);
  if (!*link) return false;
  keyring_name name = component_key_name(data_id, auth_id);
  keyring_error error = {0};
  if (keyring_fetch((*link)->keyring, &name, 0, key, &error) == KEYRING_OK) {
    component_fetched(*link, *key);
    component_master_key_fetched(*link, data_id, auth_id, *key != NULL);
    return true;
  }
  component_failed(*link, operation, data_id, auth_id, &error);
  component_link_release(*link);
  *link = NULL;
  return false;
}
