/* Takes a protection out of keyringd (LD_PRELOAD): a file is not replaced by renaming a new one over it, but truncated and written again, and
 * synced. What the server has open stays right: descriptors of the new file become descriptors of the old one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_same(int file, const struct stat *wanted) {
  struct stat status;
  return fstat(file, &status) == 0 && status.st_dev == wanted->st_dev && status.st_ino == wanted->st_ino;
}

static int copy(int from, int to) {
  char bytes[65536];
  ssize_t count;
  while ((count = read(from, bytes, sizeof bytes)) > 0) {
    if (write(to, bytes, (size_t)count) != count) return -1;
  }
  return (int)count;
}

int renameat(int old_directory, const char *old, int new_directory, const char *new) {
  int target = openat(new_directory, new, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (target < 0) {
    int (*real)(int, const char *, int, const char *) =
        (int (*)(int, const char *, int, const char *))dlsym(RTLD_NEXT, "renameat");
    return real(old_directory, old, new_directory, new);
  }
  int source = openat(old_directory, old, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (source < 0 || fstat(source, &status) != 0 || ftruncate(target, 0) != 0) return -1;
  usleep(10000); /* the moment that a power cut has to meet, made longer */
  if (copy(source, target) != 0 || fsync(target) != 0) return -1;
  for (int file = 3; file < 1024; file++) {
    if (file != source && file != target && is_same(file, &status)) dup3(target, file, O_CLOEXEC);
  }
  close(source);
  close(target);
  return unlinkat(old_directory, old, 0);
}
