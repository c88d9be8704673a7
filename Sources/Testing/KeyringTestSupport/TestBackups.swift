internal import KeyringClient
internal import Cryptography
internal import KeyringCore
public import WireProtocol

extension TestClient {
  /// A backup of a tenant, as an administrator.
  public func backup(
    _ tenant: String,
    allowUnproved: Bool = false
  ) async throws -> (bytes: [UInt8], summary: BackupSummary) {
    let begin = Call.admin(.backup(tenant, .begin(allowUnproved: allowUnproved)))
    guard case .backup(.begun(let id, let size, _, let summary)) = try await call(begin) else {
      throw UnexpectedReply()
    }
    var bytes: [UInt8] = []
    while bytes.count < Int(size) {
      let read = Call.admin(.backup(tenant, .read(id, offset: UInt64(bytes.count))))
      guard case .backup(.data(let more)) = try await call(read), !more.isEmpty else {
        throw UnexpectedReply()
      }
      bytes += more
    }
    guard case .backup(.ended) = try await call(.admin(.backup(tenant, .end(id)))) else {
      throw UnexpectedReply()
    }
    return (bytes, summary)
  }

  /// How a backup is restored.
  public struct Restoring: Sendable {
    /// `--accept-rollback`.
    public var acceptRollback = false
    /// `--accept-unproved`.
    public var acceptUnproved = false
    /// `--dry-run`.
    public var isDryRun = false

    /// Plainly.
    public init() {}
    /// Giving up what is newer.
    public static let acceptingRollback: Restoring = {
      var how = Restoring()
      how.acceptRollback = true
      return how
    }()
  }

  /// Restores a backup, as a service administrator.
  public func restore(
    _ tenant: String,
    _ bytes: [UInt8],
    _ how: Restoring = Restoring()
  ) async throws -> RestoreReport {
    guard let digest = Digest(bytes: try SHA256.hash(bytes).bytes) else { throw UnexpectedReply() }
    let begin = RestoreBeginCall(
      bytes: UInt64(bytes.count),
      digest: digest,
      acceptRollback: how.acceptRollback,
      acceptUnproved: how.acceptUnproved,
      isDryRun: how.isDryRun
    )
    guard case .restore(.begun(let id)) = try await call(.admin(.restore(tenant, .begin(begin)))) else {
      throw UnexpectedReply()
    }
    for offset in stride(from: 0, to: bytes.count, by: TransferID.chunkBytes) {
      let piece = Array(bytes[offset..<min(bytes.count, offset + TransferID.chunkBytes)])
      let write = Call.admin(.restore(tenant, .write(id, offset: UInt64(offset), data: piece)))
      guard case .restore(.written) = try await call(write) else { throw UnexpectedReply() }
    }
    guard case .restore(.ended(let report)) = try await call(.admin(.restore(tenant, .end(id)))) else {
      throw UnexpectedReply()
    }
    return report
  }

  /// Why a restore is refused; nil where it is not.
  public func restoreRefusal(
    _ tenant: String,
    _ bytes: [UInt8],
    _ how: Restoring = Restoring()
  ) async throws -> Status? {
    do {
      _ = try await restore(tenant, bytes, how)
      return nil
    } catch KeyringClientError.refused(let status) {
      return status
    }
  }
}
