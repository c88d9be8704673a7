internal import CLinux
internal import Glibc

/// Threads that block where nothing of Swift's may: they take no signal of the process, and are waited for by nobody.
enum BackgroundThread {
  private final class Work: Sendable {
    let name: String
    let body: @Sendable () -> Void

    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }

    func run() {
      _ = unsafe keyring_name_thread(name)
      body()
    }
  }

  /// Starts one.
  ///
  /// - Parameter name: at most 15 bytes; for those who look at the process.
  /// - Returns: false where the system has no more threads.
  static func start(named name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    var (all, before) = (sigset_t(), sigset_t())
    let work = unsafe Unmanaged.passRetained(Work(name, body))
    var thread = pthread_t()
    // SAFETY: all are this function's own; the new thread inherits the mask, which is put back. It takes over `work`, or nobody does.
    unsafe pthread_attr_init(&attributes)
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    let failure = unsafe pthread_create(
      &thread,
      &attributes,
      { work in
        guard let work = unsafe work else { return nil }
        unsafe Unmanaged<Work>.fromOpaque(work).takeRetainedValue().run()
        return nil
      },
      work.toOpaque()
    )
    if failure != 0 { unsafe work.release() }
    unsafe pthread_sigmask(SIG_SETMASK, &before, nil)
    unsafe pthread_attr_destroy(&attributes)
    return failure == 0
  }
}
