// The floors that keyringd is measured against, and the load that measures all of them.
#ifndef KEYRING_CBENCHMARK_H
#define KEYRING_CBENCHMARK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  const char *certificate;
  const char *key;
  const char *authority;
} bench_files;

/// A floor: one thread, epoll, TLS 1.3 with client certificates, one AES-256-GCM open of a 32-byte key a request, frames of keyringd's sizes.
/// `good` fetches the cipher once, sets the key schedule once, and sends one record and one write a round; otherwise the cipher is fetched for
/// each request, and each reply is a record and a write. It leaves out: parsing, looking up, limits, timeouts, identities.
/// Serves until it is killed; says its port to `ready`. Returns only on failure.
int bench_floor(bench_files files, int good, size_t reply_bytes, void (*ready)(int port));

typedef struct {
  const char *host;
  int port;
  /// Who connects: the first connection is the first one's, and so on, and again from the first.
  const bench_files *identities;
  int identities_count;
  int connections;
  int depth;
  double seconds;
  /// Frames, the request id of five bytes at offset 6.
  const uint8_t *fetch;
  size_t fetch_bytes;
  const uint8_t *store;
  size_t store_bytes;
  /// Where eight digits make the id of a stored key unique.
  size_t store_digits_at;
  /// Of 100 requests, how many are stores.
  int store_percent;
  uint32_t first_store;
  /// Of all connections together, by turns, at this rate, each with at most `depth` in flight; 0: as fast as replies come.
  double requests_per_second;
} bench_load_options;

typedef struct {
  uint64_t requests;
  uint64_t errors;
  double seconds;
  /// Nanoseconds from sending to receiving, in the order of sending; at most `latencies_max`.
  uint64_t *latencies;
  size_t latencies_count;
  size_t latencies_max;
} bench_load_result;

/// Drives a server, or one of several at a time, each from its own thread; the caller gives room for latencies. Returns 0, or -1 with a message on standard error.
int bench_load(const bench_load_options *options, bench_load_result *result);
/// Connects, shakes hands and closes, one after the other, for `seconds`; returns how many, or -1.
int64_t bench_handshakes(const char *host, int port, bench_files files, double seconds);
typedef struct {
  int opened;
  /// By the server, before `seconds` were over.
  int closed;
  /// The longest that one of those lived, from its connecting.
  double longest_seconds;
  double seconds;
} bench_slow_result;

/// Opens `count` connections that are no use, by turns: silent ones, ones that begin a handshake with a byte a second, and ones that shake hands
/// as `files` and then send a byte a second of a frame. Waits until the server has closed all of them, or for `seconds`. `opened` is called
/// once all are open. Returns 0, or -1 with a message on standard error.
int bench_slow_clients(
    const char *host, int port, bench_files files, int count, double seconds, void (*opened)(void *), void *context,
    bench_slow_result *result);
/// Lets this process, and those that it starts, have as many descriptors as may be.
void bench_raise_descriptors(void);
/// Appends `bytes` bytes and calls fdatasync, for `seconds`, in a new file of `directory`; returns how many, or -1.
int64_t bench_fdatasyncs(const char *directory, size_t bytes, double seconds);
/// Ties this process to one core.
int bench_pin(int core);
/// CPU seconds that a process has used, user and system; -1 if there is none.
double bench_cpu_seconds(int pid);

#endif
