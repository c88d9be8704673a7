/* SPDX-License-Identifier: MIT */
/* Points in time, in milliseconds of a clock that nobody sets. */
#ifndef KEYRING_DEADLINE_H
#define KEYRING_DEADLINE_H

#include <stdint.h>

/* CLOCK_MONOTONIC: for deadlines. */
int64_t deadline_now(void);
/* CLOCK_BOOTTIME: it goes on while the machine is suspended, so that a cached key does not outlive its time asleep. */
int64_t deadline_now_awake_or_not(void);
/* What is left; 0 when it has passed; as poll() takes it. */
int deadline_left(int64_t deadline);
/* Sleeps until then. */
void deadline_sleep_until(int64_t when);
/* Between half of it and all of it, so that many clients do not come at one time. */
int64_t deadline_jittered(int64_t milliseconds);

#endif
