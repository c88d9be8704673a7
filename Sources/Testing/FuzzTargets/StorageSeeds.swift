internal import MessageEncoding

extension StorageInput {
  /// Commits of every kind, written by hand as docs/FILE_FORMAT.md has them.
  static func seeds() throws -> [[UInt8]] {
    let ordinary = [
      commit(1) { operation(&$0, 3, wrappingKey) },
      commit(2) { message in
        operation(&message, 1) { record(&$0, "a", 1) }
        operation(&message, 1) { record(&$0, "b", 1) }
      },
      commit(3, idempotency: true) { message in
        operation(&message, 1) { record(&$0, "a", 2) }
        operation(&message, 2) { identity(&$0, "b") }
      },
    ]
    let replacement = [
      commit(5) { message in
        operation(&message, 4) { snapshot in
          snapshot.message(1, wrappingKey)
          snapshot.message(2) { record(&$0, "a", 1) }
          snapshot.message(2) { record(&$0, "a", 2) }
          snapshot.message(3) { idempotency(&$0, inSnapshot: true) }
          snapshot.number(4, 900)
        }
      },
      commit(6) { message in operation(&message, 2) { identity(&$0, "a") } },
      commit(7) { message in
        operation(&message, 5) { replaced in
          replaced.number(1, 6)
          replaced.bytes(2, [UInt8](repeating: 8, count: 32))
        }
      },
    ]
    return [0, 4, 8, 12].map { input($0, ordinary) } + [6, 14].map { input($0, replacement) }
  }

  private static func input(_ flags: UInt8, _ commits: [[UInt8]]) -> [UInt8] {
    var bytes = [flags, 2, 1]
    for commit in commits {
      bytes += [UInt8(commit.count >> 8), UInt8(commit.count & 255)]
      bytes += commit
    }
    return bytes
  }

  private static func commit(
    _ sequence: UInt64,
    idempotency isIdempotent: Bool = false,
    _ operations: (inout MessageWriter) -> Void
  ) -> [UInt8] {
    var message = MessageWriter()
    message.number(1, sequence)
    message.number(2, 1000)
    message.bytes(3, "keyringd".utf8)
    if isIdempotent { message.message(4) { idempotency(&$0, inSnapshot: false) } }
    operations(&message)
    return message.bytes
  }

  private static func operation(
    _ message: inout MessageWriter,
    _ field: Int,
    _ write: (inout MessageWriter) -> Void
  ) {
    message.message(5) { $0.message(field, write) }
  }

  private static func identity(_ message: inout MessageWriter, _ keyID: String) {
    message.number(1, keyID == "b" ? 2 : 1)
    if keyID == "b" { message.bytes(2, "db".utf8) }
    message.bytes(3, "o".utf8)
    message.bytes(4, keyID.utf8)
  }

  private static func record(_ message: inout MessageWriter, _ keyID: String, _ version: UInt64) {
    message.message(1) { identity(&$0, keyID) }
    message.bytes(2, "AES".utf8)
    message.number(3, version)
    message.number(4, 16)
    message.number(5, 1000)
    message.bytes(6, [UInt8](repeating: UInt8(version), count: 16))
    message.bytes(7, [UInt8](repeating: 0, count: 15) + [1])
    message.bytes(8, [UInt8](repeating: 3, count: 12))
    message.bytes(9, [UInt8](repeating: 4, count: 32))
  }

  private static func wrappingKey(_ message: inout MessageWriter) {
    message.bytes(1, [UInt8](repeating: 0, count: 15) + [1])
    message.bytes(2, "local-1".utf8)
    message.bytes(3, "local".utf8)
    message.bytes(4, [1, 2, 3])
    message.number(5, 500)
    message.number(6, 2)
    message.bytes(7, [UInt8](repeating: 5, count: 32))
  }

  private static func idempotency(_ message: inout MessageWriter, inSnapshot isInSnapshot: Bool) {
    message.bytes(1, [UInt8](repeating: 1, count: 16))
    message.bytes(2, [UInt8](repeating: 2, count: 32))
    message.packed(3, [2, 0])
    guard isInSnapshot else { return }
    message.bytes(4, "keyringd".utf8)
    message.number(5, 3)
    message.number(6, 1000)
  }
}
