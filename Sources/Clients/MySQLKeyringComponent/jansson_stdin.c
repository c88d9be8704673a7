/* SPDX-License-Identifier: MIT */
/* Debian's libjansson.a is compiled for programs: its json_loadf compares its argument with `stdin` by a relocation that a shared
 * object cannot have for a variable of libc. This hidden one satisfies it. Nothing in the component reads from a FILE. */

extern void *stdin __attribute__((visibility("hidden")));
void *stdin;
