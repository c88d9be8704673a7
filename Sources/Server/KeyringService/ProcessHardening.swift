public import ConfigurationFiles
internal import CLinux
internal import Glibc
internal import SecureMemory
internal import TenantRegistry

/// What a process that holds keys does before anything else, so that they leave it by no side door.
public enum ProcessHardening {
  /// What the runtime and the dynamic linker read before `main`, so that setting it here would be too late: no crash backtracer, which prints
  /// the memory behind registers; no lazy binding, which leaves vector registers, and the key bytes in them, on the stack.
  private static let environment = [("SWIFT_BACKTRACE", "enable=no"), ("LD_BIND_NOW", "1")]

  /// Starts the program again with the environment that keeps keys in; at once, if it has it already.
  public static func enterEnvironment(_ arguments: [String]) {
    // SAFETY: environment and arguments are live C strings; this is the only thread.
    let isThere = environment.allSatisfy { name, value in
      unsafe getenv(name).map { unsafe String(cString: $0) } == value
    }
    if isThere { return }
    for (name, value) in environment { unsafe setenv(name, value, 1) }
    var pointers = unsafe arguments.map { unsafe strdup($0) }
    unsafe pointers.append(nil)
    unsafe execv("/proc/self/exe", pointers)
    // Where /proc is missing the program goes on, without core files in any case.
  }

  /// Forbids core files and attaching, files for others, key logs, and death by a broken pipe or a file size limit.
  ///
  /// - Throws: where the system refuses, which it never does to a process about itself.
  public static func harden() throws(ConfigurationError) {
    guard keyring_forbid_core_files() == 0, keyring_set_dumpable(0) == 0 else {
      throw ConfigurationError("core dumps cannot be forbidden")
    }
    umask(0o077)
    raiseDescriptors()
    // SAFETY: constant names; no other thread reads the environment yet.
    unsafe unsetenv("SSLKEYLOGFILE")
    signal(SIGPIPE, SIG_IGN)
    signal(SIGXFSZ, SIG_IGN)
    signal(SIGHUP, SIG_IGN)  // until keyringd listens for it: a lost terminal is no reason to end
  }

  /// Takes as many descriptors as the process may have: it needs three for each open tenant, and one for each connection.
  private static func raiseDescriptors() {
    var limit = rlimit()
    // SAFETY: the structure lives for the calls. Where the system refuses, it stays as it is, and `descriptorsMax` says so.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  /// Descriptors that the process may have.
  static var descriptorsMax: Int {
    var limit = rlimit()
    // SAFETY: the structure lives for the call.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
    return Int(clamping: limit.rlim_cur)
  }

  /// Sets locked memory up.
  ///
  /// - Returns: true where it is locked.
  /// - Throws: where it is not, unless that is allowed.
  public static func lockMemory(bytes: Int, allowsUnlocked: Bool) throws(ConfigurationError) -> Bool {
    guard SecureHeap.installWipingAllocator() else {
      throw ConfigurationError("OpenSSL was used before its allocator could be set")
    }
    let outcome = SecureHeap.initialize(bytes: bytes)
    if outcome == .locked { return true }
    guard allowsUnlocked else {
      throw ConfigurationError(
        "\(bytes) bytes of memory cannot be locked: raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit, ulimit -l in a shell), or set allow_unlocked_memory"
      )
    }
    return false
  }
}
