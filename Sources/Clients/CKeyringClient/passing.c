/* SPDX-License-Identifier: MIT */
/* Which failures are worth a second try. */
#include "keyring.h"

bool keyring_status_is_passing(keyring_status status) {
  switch (status) {
    case KEYRING_UNREACHABLE:
    case KEYRING_TIMEOUT:
    case KEYRING_SHUTTING_DOWN:
    case KEYRING_THROTTLED:
    case KEYRING_KMS_UNREACHABLE:
    case KEYRING_STORAGE_UNAVAILABLE:
    case KEYRING_OUTCOME_UNKNOWN: return true;
    default: return false;
  }
}
