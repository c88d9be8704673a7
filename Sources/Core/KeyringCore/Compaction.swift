/// When storage is worth writing anew: once more than half of it is garbage, and that is 1 MiB at least.
///
/// Useful is what the keys, wrapping keys and remembered requests account for, each with a constant above what it takes in a whole image of
/// the keyring: so a keyring just written anew is never worth it. A record's constant has room for the batch and the commit that brought it,
/// too: so a keyring that only ever grows is never worth it. What else there is, is garbage: removes, and what they removed.
public enum Compaction {
  /// Less garbage than this is left where it is.
  public static let garbageBytesMin: UInt64 = 1 << 20

  /// Bytes that nothing in the keyring accounts for.
  public static func garbageBytes(
    storageBytes: UInt64,
    state: KeyringState,
    idempotency: IdempotencyWindow
  ) -> UInt64 {
    let useful = state.usefulBytes + idempotency.usefulBytes
    return storageBytes > useful ? storageBytes - useful : 0
  }

  /// True if storage is to be written anew.
  public static func isWorthwhile(
    storageBytes: UInt64,
    state: KeyringState,
    idempotency: IdempotencyWindow
  ) -> Bool {
    let garbage = garbageBytes(storageBytes: storageBytes, state: state, idempotency: idempotency)
    return garbage >= garbageBytesMin && garbage > storageBytes / 2
  }

  // A record takes up to 130 bytes beside its parts; a batch of one commit with an idempotency id, 280 and its caller (up to 420).
  static func usefulBytes(of record: Record, _ identity: KeyIdentity, _ type: KeyType) -> UInt64 {
    UInt64(448 + identity.encoded.count + type.text.utf8.count + record.ciphertext.count)
  }

  static func usefulBytes(of key: WrappingKey) -> UInt64 {
    UInt64(128 + key.cmkID.text.utf8.count + key.wrapped.count)
  }

  static func usefulBytes(of entry: IdempotencyWindow.Entry) -> UInt64 {
    UInt64(96 + entry.caller.utf8.count + 5 * entry.idempotency.versions.count)
  }
}
