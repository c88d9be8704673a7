// Linux calls that Glibc's Swift module does not import: open file description locks,
// prctl, epoll and eventfd, and variadic fcntl/ioctl forms.
#ifndef KEYRING_CLINUX_H
#define KEYRING_CLINUX_H

#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
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

/// prctl(PR_SET_NAME): what the calling thread is called; at most 15 bytes of `name` count.
static inline int keyring_name_thread(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }

/// epoll_ctl(2): `tag` is what keyring_epoll_wait gives when `descriptor` is ready for `events`.
static inline int keyring_epoll_control(int epoll, int operation, int descriptor, uint32_t events, uint64_t tag) {
  struct epoll_event event = {.events = events, .data = {.u64 = tag}};
  return epoll_ctl(epoll, operation, descriptor, &event);
}

/// epoll_wait(2): the tags of what is ready, at most as many as there is room for, and 64; -1 with errno.
static inline int keyring_epoll_wait(int epoll, uint64_t *tags, int tags_max, int timeout_ms) {
  struct epoll_event events[64];
  int count = epoll_wait(epoll, events, tags_max < 64 ? tags_max : 64, timeout_ms);
  for (int i = 0; i < count; i++) {
    tags[i] = events[i].data.u64;
  }
  return count;
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

/// A datagram socket to the Unix socket at `path`; -1 with errno.
static inline int keyring_datagram_unix(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(address.sun_path, path, strlen(path) + 1);
  int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made >= 0 && connect(made, (struct sockaddr *)&address, sizeof address) != 0) {
    int failure = errno;
    close(made);
    errno = failure;
    return -1;
  }
  return made;
}

/// A UDP socket to an IPv4 or IPv6 address in digits; -1 with errno.
static inline int keyring_datagram_udp(const char *host, uint16_t port) {
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  struct sockaddr *address = (struct sockaddr *)&four;
  socklen_t bytes = sizeof four;
  if (inet_pton(AF_INET, host, &four.sin_addr) != 1) {
    if (inet_pton(AF_INET6, host, &six.sin6_addr) != 1) {
      errno = EINVAL;
      return -1;
    }
    address = (struct sockaddr *)&six;
    bytes = sizeof six;
  }
  int made = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made >= 0 && connect(made, address, bytes) != 0) {
    int failure = errno;
    close(made);
    errno = failure;
    return -1;
  }
  return made;
}

/// send(2) that neither waits nor raises SIGPIPE.
static inline ssize_t keyring_datagram_send(int descriptor, const void *bytes, size_t count) {
  return send(descriptor, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}
/// syncfs(2): all of the file system that `descriptor` is in.
static inline int keyring_syncfs(int descriptor) { return (int)syscall(SYS_syncfs, descriptor); }

/// RLIMIT_CORE to zero, hard and soft.
static inline int keyring_forbid_core_files(void) {
  struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  return setrlimit(RLIMIT_CORE, &none);
}

#endif
