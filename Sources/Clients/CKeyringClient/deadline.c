/* SPDX-License-Identifier: MIT */
/* Points in time. */
#include "deadline.h"

#include <limits.h>
#include <openssl/rand.h>
#include <poll.h>
#include <time.h>

static int64_t milliseconds_of(clockid_t clock) {
  struct timespec time;
  if (clock_gettime(clock, &time) != 0) return 0;
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int64_t deadline_now(void) { return milliseconds_of(CLOCK_MONOTONIC); }

int64_t deadline_now_awake_or_not(void) { return milliseconds_of(CLOCK_BOOTTIME); }

int deadline_left(int64_t deadline) {
  int64_t left = deadline - deadline_now();
  if (left <= 0) return 0;
  return left > INT_MAX ? INT_MAX : (int)left;
}

void deadline_sleep_until(int64_t when) {
  for (int left; (left = deadline_left(when)) > 0;) (void)poll(NULL, 0, left);
}

int64_t deadline_jittered(int64_t milliseconds) {
  uint32_t random = 0;
  if (RAND_bytes((unsigned char *)&random, sizeof random) != 1) random = UINT32_MAX / 2;
  return milliseconds - milliseconds / 2 * (random & 0xffff) / 0x10000;
}
