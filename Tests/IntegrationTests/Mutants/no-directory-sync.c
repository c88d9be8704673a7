/* Takes a protection out of keyringd (LD_PRELOAD): files are synced, the directories that name them are not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>

int fsync(int file) {
  struct stat status;
  if (fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) return 0;
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return real(file);
}
