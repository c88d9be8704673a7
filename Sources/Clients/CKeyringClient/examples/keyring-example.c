/* SPDX-License-Identifier: MIT */
/* Fetches a key, or has it made where there is none, and says what it is (never its bytes).
 *
 *     cc keyring-example.c $(pkg-config --cflags --libs keyring) -o keyring-example
 *     KEYRING_SERVER=localhost:8550 KEYRING_CERT=acme-db1.crt KEYRING_KEY=acme-db1.key KEYRING_CA=ca.crt ./keyring-example MyKey */
#include <keyring.h>
#include <stdio.h>

static int fail(const keyring_error *error) {
  fprintf(stderr, "keyring-example: %s\n", error->message);
  return 1;
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: keyring-example KEY\n");
    return 2;
  }
  keyring_error error;
  keyring_config *config = keyring_config_new();
  keyring *k = NULL;
  if (!config) return 1;
  keyring_status status = keyring_config_set_from_environment(config, &error);
  if (status == KEYRING_OK) status = keyring_open(config, &k, &error);
  keyring_config_free(config);
  if (status != KEYRING_OK) return fail(&error);

  keyring_name name = keyring_name_of(KEYRING_SCOPE_DEFAULT, NULL, arguments[1]);
  keyring_key *key = NULL;
  status = keyring_fetch(k, &name, 0, &key, &error);
  /* NULL and KEYRING_OK: there is none. Any other status: cannot tell, and nothing may be made. */
  if (status == KEYRING_OK && !key) {
    status = keyring_generate(k, &name, "AES", 32, &error);
    /* Somebody else was faster: it is theirs that counts. */
    if (status == KEYRING_KEY_EXISTS) status = KEYRING_OK;
    if (status == KEYRING_OK) status = keyring_fetch(k, &name, 0, &key, &error);
  }
  if (status == KEYRING_OK && key) {
    printf("%s: %s, %zu bytes, version %u of %u\n", arguments[1], keyring_key_type(key), keyring_key_length(key),
           keyring_key_version(key), keyring_key_latest_version(key));
  }
  keyring_key_free(key);
  keyring_close(k);
  return status == KEYRING_OK ? 0 : fail(&error);
}
