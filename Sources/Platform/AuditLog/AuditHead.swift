public import Cryptography
internal import KeyringCore
internal import KeyringStorage

/// The end of a log as the server knew it, kept apart from the log: signed, so that lines cut off at the end are missed.
public struct AuditHead: Equatable, Sendable {
  /// Whose.
  public let log: String
  /// The number of the file that its last line is in.
  public let file: UInt64
  let end: ChainEnd
  let time: String
  let key: String
  let signature: [UInt8]

  /// The serial of the last line.
  public var serial: UInt64 { end.serial }

  /// Bytes of the file, at most.
  static let bytesMax = 4096

  /// The name of its file in the anchor directory.
  public static func fileName(_ log: String) -> String { "\(log).audit" }

  init(log: String, file: UInt64, end: ChainEnd, time: String, signer: SigningKey) throws(CryptographyError) {
    self.log = log
    self.file = file
    self.end = end
    self.time = time
    key = signer.verifier.name
    signature = try signer.sign(Self.message(log, file, end, time))
  }

  private static func message(_ log: String, _ file: UInt64, _ end: ChainEnd, _ time: String) -> [UInt8] {
    Array("keyring audit head v1\n\(log)\n\(file)\n\(end.serial)\n\(time)\n\(end.hash)\n".utf8)
  }

  /// One line of JSON.
  var encoded: [UInt8] {
    Array(
      "{\"log\":\"\(log)\",\"file\":\(file),\"serial\":\(end.serial),\"time\":\"\(time)\",\"hash\":\"\(end.hash)\",\"signing_key\":\"\(key)\",\"signature\":\"\(hexadecimal(signature))\"}\n"
        .utf8
    )
  }

  /// Reads what a server wrote; nil for anything else.
  public init?(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    let pattern =
      /\{"log":"([a-z0-9_-]+)","file":([0-9]{1,19}),"serial":([0-9]{1,19}),"time":"([0-9T:.Z-]{24})","hash":"([0-9a-f]{64})","signing_key":"([0-9a-f]{16})","signature":"([0-9a-f]{128})"\}\n/
    guard bytes.count <= Self.bytesMax, let match = text.wholeMatch(of: pattern),
      let file = UInt64(match.2), let serial = UInt64(match.3),
      let hash = hexadecimalBytes(String(match.5)).flatMap({ Digest(bytes: $0) }),
      let signature = hexadecimalBytes(String(match.7))
    else { return nil }
    log = String(match.1)
    self.file = file
    end = ChainEnd(serial: serial, hash: hash)
    time = String(match.4)
    key = String(match.6)
    self.signature = signature
    guard encoded == bytes else { return nil }
  }

  /// True where the key signed it.
  public func isValid(_ verifier: VerifyingKey) throws(CryptographyError) -> Bool {
    guard key == verifier.name else { return false }
    return try verifier.isValid(signature, of: Self.message(log, file, end, time))
  }

  /// What stands in the anchor directory; nil where there is none, or it is nothing that this key signed.
  static func read(
    _ log: String,
    in anchors: DirectoryDescriptor,
    _ verifier: VerifyingKey
  ) throws(AuditError) -> AuditHead? {
    do {
      let bytes = try anchors.readFile(fileName(log), bytesMax: bytesMax)
      guard let head = AuditHead(bytes), head.log == log, try head.isValid(verifier) else { return nil }
      return head
    } catch let error as FileError {
      if case .absent = error { return nil }
      throw .unavailable("\(error)")
    } catch {
      throw .unavailable("\(error)")
    }
  }
}

extension VerifyingKey {
  /// What lines call it: the first 16 hexadecimal digits of its fingerprint.
  public var name: String { hexadecimal(fingerprint.bytes.prefix(8)) }
}

/// Why the audit log cannot be written or read.
public enum AuditError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The directory, its key or its settings cannot be used.
  case unusable(String)
  /// It cannot be written now.
  case unavailable(String)

  /// Names the file and the step.
  public var description: String {
    switch self {
    case .unusable(let what), .unavailable(let what): what
    }
  }
}
