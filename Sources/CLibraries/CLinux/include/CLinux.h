// Linux calls that Glibc's Swift module does not import: open file description locks,
// prctl, and variadic fcntl/ioctl forms.
#ifndef KEYRING_CLINUX_H
#define KEYRING_CLINUX_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

/// Takes an exclusive open-file-description lock on the whole file without waiting (fcntl(2)).
/// Returns 0, or -1 with errno EAGAIN or EACCES where another holds it.
static inline int keyring_lock_exclusive(int descriptor) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return fcntl(descriptor, F_OFD_SETLK, &lock);
}

/// prctl(PR_SET_DUMPABLE): 0 forbids core dumps and attaching by other processes of the same user.
static inline int keyring_set_dumpable(int dumpable) {
  return prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0);
}

/// openat(2) with a mode, which Swift cannot pass through the variadic form.
static inline int keyring_openat(int directory, const char *path, int flags, mode_t mode) {
  return openat(directory, path, flags, mode);
}

/// renameat2(2) with RENAME_NOREPLACE: -1 with errno EEXIST where `to` is there, EINVAL or ENOSYS where the file system
/// or the kernel does not know how.
static inline int keyring_rename_new(const char *from, const char *to) {
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1u);
}

/// RLIMIT_CORE to zero, hard and soft.
static inline int keyring_forbid_core_files(void) {
  struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  return setrlimit(RLIMIT_CORE, &none);
}

#endif
