/* SPDX-License-Identifier: MIT */
/* A TLS server that clients have to survive: a certificate that they trust, and answers that are none.
 *
 *   hostile-server CERTIFICATE KEY MODE [PORT]     prints its port; serves each connection in a process of its own, but for `mutate`,
 *                                                  until it is ended. `then-MODE`: as MODE after a first right answer;
 *                                                  `late-then-MODE`: which is a second late */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keyring/v1/keyring.pb-c.h"

static const char *mode, *later; /* `later` is the mode after the first answer */
static int *requests; /* of all connections so far */
static bool is_late_once, is_going;
static uint64_t state = 0x9e3779b97f4a7c15; /* the same mutations each time */

static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static bool is_mode(const char *name) { return strcmp(mode, name) == 0; }

static bool read_all(SSL *ssl, unsigned char *bytes, size_t length) {
  for (size_t done = 0, count = 0; done < length; done += count) {
    if (SSL_read_ex(ssl, bytes + done, length - done, &count) != 1) return false;
  }
  return true;
}

/* A locked tenant's status whose text has to be cut within a character, and would be obeyed by a terminal. */
static char *long_text(void) {
  static char text[700] = "hostile\n\x1b[31m\xc2\x9b\x9b";
  for (size_t i = strlen(text); i + 2 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 2);
  return text;
}

static bool write_all(SSL *ssl, const unsigned char *bytes, size_t length) {
  size_t count = 0;
  return SSL_write_ex(ssl, bytes, length, &count) == 1;
}

/* A right answer to the request, or one that is wrong in the way of the mode; its length, after a prefix of 5 bytes. */
static size_t answer(const Keyring__V1__Request *request, unsigned char *frame) {
  Keyring__V1__Reply reply = KEYRING__V1__REPLY__INIT;
  Keyring__V1__Status status = KEYRING__V1__STATUS__INIT;
  Keyring__V1__FetchReply fetch = KEYRING__V1__FETCH_REPLY__INIT;
  Keyring__V1__ListReply list = KEYRING__V1__LIST_REPLY__INIT;
  Keyring__V1__DescribeReply describe = KEYRING__V1__DESCRIBE_REPLY__INIT;
  Keyring__V1__RotateReply rotate = KEYRING__V1__ROTATE_REPLY__INIT;
  Keyring__V1__KeyName name = KEYRING__V1__KEY_NAME__INIT;
  Keyring__V1__KeyInfo info = KEYRING__V1__KEY_INFO__INIT;
  static Keyring__V1__KeyInfo *infos[20000];
  infos[0] = &info;
  unsigned char value[32] = "thirty-two bytes, or nearly so.";
  fetch.value = (ProtobufCBinaryData){sizeof value, value};
  fetch.found = !is_mode("wrong-id");
  fetch.type = info.type = "AES";
  fetch.version = fetch.latest_version = info.version = info.latest_version = 1;
  info.length = 32;
  info.name = &name;
  name.scope = is_mode("other-scope") ? KEYRING__V1__SCOPE__SHARED : KEYRING__V1__SCOPE__INSTANCE;
  if (is_mode("other-owner")) name.owner = (ProtobufCBinaryData){1, (uint8_t *)"x"};
  name.key_id = (ProtobufCBinaryData){1, (uint8_t *)(is_mode("other-key") ? "j" : "k")};
  list.n_keys = 1;
  list.keys = infos;
  rotate.version = is_mode("other-key") ? 1 : 2;
  describe.found = 1;
  describe.info = &info;
  reply.id = request->id + (is_mode("wrong-id") ? 1 : 0);
  reply.result_case = KEYRING__V1__REPLY__RESULT_FETCH;
  reply.fetch = &fetch;
  bool is_fetch = request->call_case == KEYRING__V1__REQUEST__CALL_FETCH;
  if (is_mode("wrong-result") ? is_fetch : request->call_case == KEYRING__V1__REQUEST__CALL_LIST) {
    reply.result_case = KEYRING__V1__REPLY__RESULT_LIST;
    reply.list = &list;
  } else if (request->call_case == KEYRING__V1__REQUEST__CALL_ROTATE && !is_mode("wrong-result")) {
    reply.result_case = KEYRING__V1__REPLY__RESULT_ROTATE;
    reply.rotate = &rotate;
  } else if (request->call_case == KEYRING__V1__REQUEST__CALL_DESCRIBE && !is_mode("wrong-result")) {
    reply.result_case = KEYRING__V1__REPLY__RESULT_DESCRIBE;
    reply.describe = &describe;
  }
  bool is_status = is_mode("locked") || is_mode("kms-away") || is_mode("internal") || is_mode("status-and-result") || strstr(mode, "of-connection");
  if (is_status) {
    status.code = KEYRING__V1__CODE__FAILED_PRECONDITION;
    status.retry_after_ms = is_mode("kms-away") ? 10 : 0;
    status.reason = is_mode("locked") ? 8 : is_mode("kms-away") ? 11 : is_mode("internal") ? 25 : is_mode("shutdown-of-connection") ? 24 : 2;
    status.message = long_text();
    reply.status = &status;
    if (!is_mode("status-and-result")) reply.result_case = KEYRING__V1__REPLY__RESULT__NOT_SET;
    if (strstr(mode, "of-connection")) reply.id = 0;
  }
  /* Two bytes each here, a hundred where they are unpacked. */
  static Keyring__V1__KeyInfo empty = KEYRING__V1__KEY_INFO__INIT;
  if (is_mode("bomb")) {
    list.n_keys = sizeof infos / sizeof *infos;
    for (size_t i = 0; i < list.n_keys; i++) infos[i] = &empty;
    reply.result_case = KEYRING__V1__REPLY__RESULT_LIST;
    reply.list = &list;
  }
  if (is_mode("nothing")) reply.result_case = KEYRING__V1__REPLY__RESULT__NOT_SET;
  return keyring__v1__reply__pack(&reply, frame + 5);
}

static void mutate(unsigned char *bytes, size_t *length) {
  for (uint64_t i = 1 + next_random() % 4; i > 0 && *length > 0; i--) {
    size_t at = next_random() % *length;
    switch (next_random() % 4) {
    case 0: bytes[at] ^= (unsigned char)(1 << next_random() % 8); break;
    case 1: bytes[at] = (unsigned char)next_random(); break;
    case 2: *length = at; break;
    default:
      memmove(bytes + at + 1, bytes + at, *length - at);
      *length += 1;
    }
  }
}

/* Messages of TLS itself for as long as they are taken. */
static void send_key_updates(SSL *ssl) {
  while (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1) continue;
}

static void send_tickets(SSL *ssl) {
  while (SSL_new_session_ticket(ssl) == 1 && SSL_do_handshake(ssl) == 1) continue;
}

/* Before any handshake, and without encryption, so that the client cannot keep up: a HelloRequest, which clients skip. */
static void send_hello_requests(int fd) {
  static unsigned char records[9 * 4096];
  for (size_t i = 0; i < sizeof records; i += 9) memcpy(records + i, "\x16\x03\x03\0\4\0\0\0\0", 9);
  while (send(fd, records, sizeof records, MSG_NOSIGNAL) > 0) continue;
}

/* False: the connection is at its end. */
static bool respond(SSL *ssl, const Keyring__V1__Request *request) {
  static unsigned char frame[70000];
  int number = __atomic_add_fetch(requests, 1, __ATOMIC_RELAXED);
  if (later && number > 1) mode = later;
  if (is_going) mode = number == 1 ? "right" : number == 2 ? "kms-away" : "close";
  if (is_late_once && number == 1) usleep(1000000);
  memset(frame, 0, sizeof frame);
  size_t length = answer(request, frame);
  if (is_mode("mutate")) mutate(frame + 5, &length);
  if (is_mode("garbage")) for (size_t i = 0; i < length; i++) frame[5 + i] = (unsigned char)next_random();
  if (is_mode("empty")) length = 0;
  if (is_mode("huge")) length = 0xffffffff;
  if (is_mode("just-too-long")) length = 65537;
  for (int i = 0; i < 4; i++) frame[1 + i] = (unsigned char)(length >> (24 - 8 * i));
  if (is_mode("flags")) frame[0] = 1;
  if (is_mode("huge") || is_mode("just-too-long")) return write_all(ssl, frame, sizeof frame) && false;
  if (is_mode("half")) return write_all(ssl, frame, 5 + length / 2) && false;
  if (is_mode("close")) return false;
  if (is_mode("key-updates")) send_key_updates(ssl);
  if (is_mode("tickets")) send_tickets(ssl);
  if (is_mode("silent") || (is_mode("second-silent") && number == 2)) {
    (void)read_all(ssl, frame, 1);
    return false;
  }
  if (is_mode("slowly")) {
    for (size_t i = 0; i < 5 + length; i++) if (!write_all(ssl, frame + i, 1)) return false;
    return true;
  }
  if (is_mode("updates-after")) {
    if (write_all(ssl, frame, 5 + length)) send_key_updates(ssl);
    return false;
  }
  if (is_mode("dribble")) {
    frame[3] = 0x80;
    for (int i = 0; i < 30000 && write_all(ssl, frame + i, 1); i++) usleep(5000);
    return false;
  }
  return !is_mode("tickets") && !is_mode("key-updates") && write_all(ssl, frame, 5 + length);
}

static void serve(SSL *ssl) {
  static unsigned char bytes[70000];
  /* What is sent to us from now on is answered with RST: a client's next write is one that raises SIGPIPE. */
  if (is_mode("goodbye")) {
    (void)SSL_shutdown(ssl);
    return;
  }
  for (;;) {
    if (!read_all(ssl, bytes, 5)) return;
    size_t length = (size_t)bytes[3] << 8 | bytes[4];
    if (!read_all(ssl, bytes, length)) return;
    Keyring__V1__Request *request = keyring__v1__request__unpack(NULL, length, bytes);
    if (!request) return;
    bool goes_on = respond(ssl, request);
    keyring__v1__request__free_unpacked(request, NULL);
    if (!goes_on) return;
  }
}

static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *in, unsigned int in_length, void *data) {
  (void)ssl, (void)in_length, (void)data;
  *out = in + 1;
  *length = in[0];
  return is_mode("no-protocol") ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_OK;
}

static void serve_one(SSL_CTX *context, int fd) {
  if (!is_mode("mutate")) (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (is_mode("hello-requests")) send_hello_requests(fd);
  if (is_mode("mute")) for (char bytes[4096]; recv(fd, bytes, sizeof bytes, 0) > 0;) continue;
  SSL *ssl = SSL_new(context);
  if (!ssl || SSL_set_fd(ssl, fd) != 1) abort();
  if (SSL_accept(ssl) == 1) serve(ssl);
  SSL_free(ssl);
}

int main(int count, char **arguments) {
  if (count != 4 && count != 5) return 2;
  mode = arguments[3];
  is_going = is_mode("kms-away-then-gone");
  is_late_once = strncmp(mode, "late-", 5) == 0;
  if (is_late_once) mode += 5;
  if (strncmp(mode, "then-", 5) == 0) {
    later = mode + 5;
    mode = "right";
  }
  signal(SIGPIPE, SIG_IGN);
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (!context || SSL_CTX_use_certificate_chain_file(context, arguments[1]) != 1) return 3;
  if (SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) != 1) return 3;
  SSL_CTX_set_num_tickets(context, 0);
  if (is_mode("tls-1.2") && SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION) != 1) return 3;
  /* Of nobody's CA: no client's certificate is good. */
  if (is_mode("no-client")) SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
  bool is_6 = is_mode("right-6");
  int listener = socket(is_6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  if (!is_6) *(struct sockaddr_in *)&at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  if (count == 5) at.sin6_port = htons((uint16_t)atoi(arguments[4])); /* at the same place in both */
  if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)) return 3;
  socklen_t length = is_6 ? sizeof at : sizeof(struct sockaddr_in);
  if (bind(listener, (struct sockaddr *)&at, length) || listen(listener, 64)) return 3;
  if (getsockname(listener, (struct sockaddr *)&at, &length)) return 3;
  requests = mmap(NULL, sizeof *requests, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (requests == MAP_FAILED) return 3;
  signal(SIGCHLD, SIG_IGN);
  printf("%d\n", ntohs(at.sin6_port));
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) return 3;
    pid_t child = is_mode("mutate") ? 0 : fork();
    if (child < 0) return 3;
    if (child == 0) serve_one(context, fd);
    if (child == 0 && !is_mode("mutate")) _exit(0);
    close(fd);
  }
}
