/* SPDX-License-Identifier: MIT */
/* What the programs have in common that play a database server's part. Commands come on standard input, one a line, words parted by single
 * spaces; each prints one line or more and then `.`. Lines of the error log come between as `log SEVERITY TEXT`. */
#ifndef DRIVER_H
#define DRIVER_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DRIVER_WORDS = 10 };

struct driver_command {
  const char *name; /* NULL after the last */
  int words;
  void (*run)(char **word);
};

static int driver_count(const char *folder, bool sockets) {
  DIR *directory = opendir(folder);
  if (!directory) abort();
  int count = 0;
  for (struct dirent *entry; (entry = readdir(directory));) {
    struct stat status;
    if (entry->d_name[0] == '.') continue;
    if (!sockets || (fstat(atoi(entry->d_name), &status) == 0 && S_ISSOCK(status.st_mode))) count++;
  }
  closedir(directory);
  return count;
}

static int driver_sockets(void) { return driver_count("/proc/self/fd", true); }
static int driver_threads(void) { return driver_count("/proc/self/task", false); }

/* `touch FILE` tells the test that everything before is done, `await FILE` waits for its word. */
static void driver_touch(char **word) {
  FILE *file = fopen(word[1], "w");
  printf("%s\n", file && fclose(file) == 0 ? "ok" : "failed");
}

static void driver_await(char **word) {
  while (access(word[1], F_OK) != 0) usleep(10000);
  printf("ok\n");
}

static void driver_run_line(const struct driver_command *commands, char *line) {
  static const struct driver_command own[] = {{"touch", 2, driver_touch}, {"await", 2, driver_await}, {NULL, 0, NULL}};
  char *word[DRIVER_WORDS] = {0};
  int count = 0;
  line[strcspn(line, "\n")] = 0;
  for (char *rest = line, *one; count < DRIVER_WORDS && (one = strsep(&rest, " "));) word[count++] = one;
  const struct driver_command *command = own;
  while (command->name && strcmp(command->name, word[0]) != 0) command++;
  if (!command->name) command = commands;
  while (command->name && strcmp(command->name, word[0]) != 0) command++;
  if (!command->name || command->words != count) {
    fprintf(stderr, "no such command: %s with %d words\n", word[0], count);
    exit(2);
  }
  command->run(word);
  printf(".\n");
  fflush(stdout);
}

static void driver_run(const struct driver_command *commands) {
  static char line[65536];
  while (fgets(line, sizeof line, stdin)) driver_run_line(commands, line);
}

#endif
