import Foundation
import Glibc
import KeyringTestSupport
import Testing

/// A real file system in a file of a test's own, whose power can be cut: mounted through a loop device.
///
/// The cut is what the file systems have for it (xfs_io(8), `shutdown`): from that moment nothing reaches the disk any more; what did before, and
/// no more, is there when it is mounted again.
final class LoopFileSystem: Sendable {
  enum Kind: String, CaseIterable, Sendable { case ext4, xfs }

  /// What is lost beside everything that was not on its way.
  enum Cut: String, CaseIterable, Sendable {
    /// The file system's own log as far as it is in memory.
    case withoutLog
    /// Nothing of the log: names and sizes may be newer than the data.
    case afterLogFlush

    /// XFS_IOC_GOINGDOWN's argument, which ext4 has too.
    fileprivate var flags: UInt32 {
      switch self {
      case .withoutLog: 2
      case .afterLogFlush: 1
      }
    }
  }

  struct Failure: Error, CustomStringConvertible { let description: String }

  let kind: Kind
  /// Where it is mounted.
  let path: String
  private let folder: TestDirectory
  /// Between the loop device and the file, where the disk can be made to fail.
  private let breaker: TestProcess?
  /// A loop device of its own for the file system's log, which then never fails.
  private let logDevice: String?

  /// Makes one and mounts it.
  ///
  /// - Parameters:
  ///   - isBreakable: writes to its disk fail when they are told to.
  ///   - isLogApart: but not writes to its log: then it does not shut itself down, and goes on with the data it could not write.
  init(_ kind: Kind, isBreakable: Bool = false, isLogApart: Bool = false) async throws {
    self.kind = kind
    folder = try TestDirectory()
    path = folder("mounted")
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    let image = folder("image")
    try await Self.run(["truncate", "--size=320M", image])
    let log = isLogApart ? try await Self.makeLogDevice(folder("log")) : nil
    logDevice = log
    try await Self.format(kind, image, log: log)
    breaker = isBreakable ? try await Self.startBreaker(folder) : nil
    try await mount()
  }

  private static func makeLogDevice(_ path: String) async throws -> String {
    try await run(["truncate", "--size=128M", path])
    return try await run(["losetup", "--find", "--show", path]).trimmingCharacters(in: .newlines)
  }

  private static func format(_ kind: Kind, _ image: String, log: String?) async throws {
    switch (kind, log) {
    case (.ext4, nil): try await run(["mkfs.ext4", "-q", "-F", image])
    case (.ext4, let log?):
      try await run(["mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", log])
      try await run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "device=\(log)", image])
    case (.xfs, nil): try await run(["mkfs.xfs", "-q", "-f", image])
    case (.xfs, let log?): try await run(["mkfs.xfs", "-q", "-f", "-l", "logdev=\(log)", image])
    }
  }

  /// Makes one for the length of the call.
  static func use<Value>(
    _ kind: Kind,
    isBreakable: Bool = false,
    isLogApart: Bool = false,
    _ body: (LoopFileSystem) async throws -> Value
  ) async throws -> Value {
    let made = try await LoopFileSystem(kind, isBreakable: isBreakable, isLogApart: isLogApart)
    do {
      let value = try await body(made)
      try await made.end()
      return value
    } catch {
      try await run(["umount", "--lazy", made.path])
      try await made.endDevices()
      throw error
    }
  }

  // MARK: A disk that fails

  /// nbdkit's error filter (nbdkit-error-filter(1)) before the file, as a file again through FUSE (nbdfuse(1)).
  private static func startBreaker(_ folder: TestDirectory) async throws -> TestProcess {
    let disk = folder("disk")
    try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: false)
    let process = try TestProgram(path: "/usr/bin/env").start(
      ["nbdfuse", "\(disk)/disk", "--socket-activation", "nbdkit", "--foreground", "--filter=error", "file"]
        + [folder("image"), "error=EIO", "error-pwrite-rate=100%", "error-file=\(folder("broken"))"],
      environment: [:],
      error: folder("breaker.log")
    )
    while !FileManager.default.fileExists(atPath: "\(disk)/disk") {
      guard process.isRunning else {
        throw Failure(
          description: "nbdfuse: \(try String(contentsOfFile: folder("breaker.log"), encoding: .utf8))"
        )
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    return process
  }

  private func endDevices() async throws {
    if let logDevice { try await Self.run(["losetup", "--detach", logDevice]) }
    guard let breaker else { return }
    try await Self.run(["fusermount3", "-u", "-z", folder("disk")])
    await breaker.ended()
  }

  private func end() async throws {
    try await unmount()
    try await endDevices()
  }

  /// From now on every write to the disk fails (EIO).
  func breakDisk() throws { try folder.write("broken", "") }

  /// Writes succeed again.
  func healDisk() throws { try FileManager.default.removeItem(atPath: folder("broken")) }

  // MARK: Mounting

  private var image: String { breaker == nil ? folder("image") : folder("disk/disk") }

  /// Whether this machine lets a test mount; where it does not, that is a failure that says so.
  static func isPossible() -> Bool {
    let isRoot = geteuid() == 0
    let hasLoop = FileManager.default.fileExists(atPath: "/dev/loop-control")
    if !isRoot { Issue.record("power cuts need root: file systems are mounted") }
    if !hasLoop { Issue.record("power cuts need loop devices: /dev/loop-control is not there") }
    return isRoot && hasLoop
  }

  @discardableResult
  static func run(_ command: [String]) async throws -> String {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    let outcome = try await TestProgram(path: "/usr/bin/env").run(command, environment: ["PATH": path])
    guard outcome.status == 0, !outcome.isSignal else {
      throw Failure(description: "\(command.joined(separator: " ")): \(outcome.error)\(outcome.text)")
    }
    return outcome.text
  }

  func mount() async throws {
    let log = logDevice.map { kind == .ext4 ? ",journal_path=\($0)" : ",logdev=\($0)" }
    try await Self.run(["mount", "-o", "loop" + (log ?? ""), image, path])
  }

  /// A process that just ended may hold it for a moment longer.
  func unmount() async throws {
    for attempt in 1... {
      do {
        try await Self.run(["umount", path])
        return
      } catch let failure as Failure where failure.description.contains("busy") && attempt < 100 {
        try await Task.sleep(for: .milliseconds(20))
      }
    }
  }

  /// Cuts the power at this moment.
  func cut(_ cut: Cut) throws {
    let root = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard root >= 0 else { throw Failure(description: "cannot open \(path)") }
    defer { close(root) }
    var flags = cut.flags
    // SAFETY: the request (XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN) reads one 32-bit number, which lives for the call.
    guard unsafe ioctl(root, 0x8004_587d, &flags) == 0 else {
      throw Failure(description: "cannot shut \(path) down: errno \(errno)")
    }
  }

  /// What the disk has: mounted anew after a cut. An ext4 whose own log met errors says at mounting that it wants e2fsck(8), and is given it, as
  /// at any start of a machine.
  func remount() async throws {
    try await unmount()
    if kind == .ext4, breaker != nil, logDevice == nil {
      // Exit status 0 to 2: whole, or mended.
      try await Self.run(["sh", "-c", "e2fsck -f -y \"$1\"; test $? -le 2", "sh", image])
    }
    try await mount()
  }
}
