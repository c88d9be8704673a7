internal import Cryptography
internal import KeyringCore
internal import KeyringStorage

/// A storage file. Checksums stop nobody, and random bytes have none: an input is a list of commits, around which a file with right checksums
/// is built (docs/FILE_FORMAT.md); or, where its first byte is odd, a file as it is.
///
/// Input: 1 byte of flags (1 raw, 2 a replacement, 4 one batch a commit, 8 cut off); 2 bytes, where it is cut; then commits, each behind its length in 2 bytes.
enum StorageInput {
  private static let tenant: TenantName = {
    do {
      return try TenantName("acme")
    } catch {
      preconditionFailure("\(error)")
    }
  }()

  static func run(_ input: [UInt8]) -> Bool {
    guard input.count > 3 else { return false }
    let flags = input[0]
    let file = flags & 1 == 1 ? Array(input.dropFirst(3)) : build(input.dropFirst(3), flags)
    let whole = read(file)
    if flags & 8 == 8 {
      let cut = (Int(input[1]) << 8 | Int(input[2])) % (file.count + 1)
      check(whole, read(Array(file.prefix(cut))), cut)
    }
    guard let whole else { return false }
    precondition(whole.tornTail != nil || whole.validBytes == file.count)
    precondition(whole.positions.last == whole.position && whole.state.sequence == whole.position.sequence)
    checkImage(whole)
    return true
  }

  private static func read(_ file: [UInt8]) -> StorageFileContent? {
    do {
      return try StorageFileReader.read(file, tenant: tenant)
    } catch {
      return nil
    }
  }

  /// A file cut off somewhere is a shorter history of the same, or nothing.
  private static func check(_ whole: StorageFileContent?, _ cut: StorageFileContent?, _ bytes: Int) {
    guard let cut, let whole else { return }
    precondition(
      cut.validBytes <= bytes && whole.positions.starts(with: cut.positions),
      "a cut made another history"
    )
  }

  /// What was read can be written as a replacement: the image of it gives the same keyring.
  private static func checkImage(_ content: StorageFileContent) {
    let image = KeyringImage(
      tenant: tenant,
      id: content.state.id,
      sequence: content.state.sequence,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: Array(content.state.wrappingKeys.values),
      keys: content.state.keys,
      idempotency: content.idempotency
    )
    do {
      let again = try KeyringState(image)
      precondition(again.keys == content.state.keys && again.wrappingKeys == content.state.wrappingKeys)
      precondition(again.recordCount == content.state.recordCount)
    } catch {
      preconditionFailure("what was read cannot be replaced: \(error)")
    }
  }

  // MARK: Building

  private static func sha256(_ parts: [UInt8]...) -> [UInt8] {
    do {
      return try SHA256.hash(parts.flatMap { $0 }).bytes
    } catch {
      preconditionFailure("\(error)")
    }
  }

  private static func build(_ input: ArraySlice<UInt8>, _ flags: UInt8) -> [UInt8] {
    var commits: [[UInt8]] = []
    var rest = input
    while rest.count > 2 {
      let count = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
      commits.append(Array(rest.dropFirst(2).prefix(count)))
      rest = rest.dropFirst(2 + min(count, rest.count - 2))
    }
    let isReplacement = flags & 2 == 2
    var file = Array("KEYRING\0".utf8) + [0, 1, 4] + Array("acme".utf8)
    file += [UInt8](repeating: 0, count: 80 - file.count) + [UInt8](repeating: 7, count: 16)
    file += [UInt8](repeating: 0, count: 8)
    file += [UInt8](repeating: 0, count: 7) + [isReplacement ? 5 : 0]
    file += [UInt8](repeating: isReplacement ? 9 : 0, count: 32)
    var digest = sha256(file)
    file += digest
    var sequence: UInt64 = isReplacement ? 5 : 1
    for batch in flags & 4 == 4 ? commits.map({ [$0] }) : [commits] {
      let bytes = encode(batch, sequence, &digest)
      file += bytes
      sequence += UInt64(batch.count)
    }
    return file
  }

  private static func encode(_ commits: [[UInt8]], _ sequence: UInt64, _ digest: inout [UInt8]) -> [UInt8] {
    let body = commits.reduce(0) { $0 + 4 + $1.count }
    var bytes = Array("KRBATCH\0".utf8)
    appendBigEndian(UInt64(body), to: &bytes)
    appendBigEndian(sequence, to: &bytes)
    appendBigEndian(UInt32(commits.count), to: &bytes)
    bytes += [0, 0, 0, 0] + digest
    bytes += sha256(bytes)
    for commit in commits {
      appendBigEndian(UInt32(commit.count), to: &bytes)
      bytes += commit
    }
    digest = sha256(digest, bytes)
    bytes += digest + WrappingKeyID(value: 1).bytes + [UInt8](repeating: 0, count: 32)
    appendBigEndian(UInt64(body), to: &bytes)
    return bytes + Array("KRTRAIL\0".utf8)
  }
}
