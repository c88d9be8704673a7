/* SPDX-License-Identifier: MIT */
/* Who the server takes us for. */
#include <string.h>

#include "call.h"

keyring_status keyring_who_am_i(keyring *k, keyring_identity *who, keyring_error *error) {
  failure f = {0};
  if (!k || !who) {
    failure_set(&f, KEYRING_BAD_ARGUMENT, "a keyring and a place for the answer are needed");
    return keyring_fail(k, &f, error);
  }
  Keyring__V1__WhoAmIRequest request = KEYRING__V1__WHO_AM_IREQUEST__INIT;
  call c;
  call_init(&c, CALL_READ, KEYRING__V1__REQUEST__CALL_WHO_AM_I, KEYRING__V1__REPLY__RESULT_WHO_AM_I);
  c.request.who_am_i = &request;
  if (call_perform(k, &c, &f) != KEYRING_OK) return keyring_fail(k, &f, error);
  const Keyring__V1__WhoAmIReply *reply = c.reply.message->who_am_i;
  memset(who, 0, sizeof *who);
  failure_copy_text(who->uri, sizeof who->uri, reply->uri);
  failure_copy_text(who->tenant, sizeof who->tenant, reply->tenant);
  failure_copy_text(who->instance, sizeof who->instance, reply->instance);
  failure_copy_text(who->server_version, sizeof who->server_version, reply->server_version);
  failure_copy_text(who->profile, sizeof who->profile, reply->profile);
  failure_copy_text(who->server, sizeof who->server, f.server);
  who->not_after = reply->not_after;
  who->read_only = reply->read_only;
  frame_reply_free(&c.reply);
  return KEYRING_OK;
}
