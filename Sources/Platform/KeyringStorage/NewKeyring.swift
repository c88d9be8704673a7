public import KeyringCore

/// A keyring that no file has yet: its storage file and its anchor, as they are to be written together.
public struct NewKeyring: Sendable {
  /// The storage file: a header and one batch.
  public let file: [UInt8]
  /// Its anchor, authenticated, at the position of the file.
  public let anchor: [UInt8]
  let position: StorePosition

  /// Encodes a keyring's first commits, of which the first has sequence 1.
  ///
  /// - Throws: `StoreError.unavailable`.
  public init(
    tenant: TenantName,
    id: KeyringID,
    commits: [Commit],
    authenticator: any BatchAuthenticator
  ) throws(StoreError) {
    precondition(commits.first?.sequence == 1, "a keyring begins with sequence 1")
    let head = try StorageHeader(
      tenant: tenant,
      keyring: id,
      createdMilliseconds: commits[0].timeMilliseconds,
      origin: StorePosition(sequence: 0, digest: .zero)
    ).encode()
    let batch = try EncodedBatch.make(
      commits.map(CommitCodec.encode),
      firstSequence: 1,
      previous: StorageHeader.digest(head),
      tenant: tenant,
      keyring: id,
      authenticator: authenticator
    )
    file = head + batch.bytes
    position = batch.position
    anchor = try Anchor.make(
      tenant: tenant,
      keyring: id,
      position: batch.position,
      authenticator: authenticator
    ).encode(tenant: tenant)
  }

  /// Where a tenant's anchor is in the directory of anchors.
  public static func anchorName(_ tenant: TenantName) -> String { tenant.text + ".anchor" }
}
