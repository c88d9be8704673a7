internal import KeyringCore

/// What readers see of an open keyring: one durable state, and the wrapping keys at hand. Immutable; replaced as a whole.
final class ReadView: Sendable {
  let state: KeyringState
  let position: StorePosition
  let held: [WrappingKeyID: HeldWrappingKey]
  /// True while batches of the file wait for their wrapping key to be checked: "absent" cannot be said then.
  let isUnverified: Bool

  init(
    state: KeyringState,
    position: StorePosition,
    held: [WrappingKeyID: HeldWrappingKey],
    isUnverified: Bool
  ) {
    self.state = state
    self.position = position
    self.held = held
    self.isUnverified = isUnverified
  }

  func with(state: KeyringState, position: StorePosition) -> ReadView {
    ReadView(state: state, position: position, held: held, isUnverified: isUnverified)
  }

  func with(held: [WrappingKeyID: HeldWrappingKey], isUnverified: Bool) -> ReadView {
    ReadView(state: state, position: position, held: held, isUnverified: isUnverified)
  }
}

/// The answer to a read, where it can be given from memory at once.
enum ReadAnswer {
  /// There is no such key, or no such version; known for sure.
  case absent
  /// There is: its record opens under `wrappingKey`, which may be used now.
  case present(KeyIdentity, Key, Record, HeldWrappingKey)
  /// The wrapping key must be asked for first.
  case needsWrappingKey(WrappingKeyID)
}
