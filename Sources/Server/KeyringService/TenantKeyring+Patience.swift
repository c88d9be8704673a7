internal import KeyringCore
internal import Synchronization

extension TenantKeyring {
  /// For how long, in nanoseconds, callers wait for a provider that is asked to confirm what is held within its grace: silence is known after
  /// its repetitions only, and until then nobody else would be served.
  static let patience: UInt64 = 1_000_000_000

  /// What `answer` comes to; where that takes long and the wrapping key is held within its grace, the held one. The answer counts when it comes.
  func patiently(
    _ id: WrappingKeyID,
    _ answer: @escaping @Sendable () async -> Result<HeldWrappingKey, ServiceError>
  ) async -> Result<HeldWrappingKey, ServiceError> {
    guard let confirmedAt = confirmationInGrace(id) else { return await answer() }
    return await withCheckedContinuation { continuation in
      let first = FirstAnswer(continuation)
      let waiting = Task.detached {
        do {
          try await Task.sleep(nanoseconds: Self.patience)
        } catch {
          return  // the answer came
        }
        if let held = self.goOn(id, confirmedAt: confirmedAt) { first.take(.success(held)) }
      }
      Task.detached {
        first.take(await answer())
        waiting.cancel()
      }
    }
  }

  /// When a wrapping key that is held, and may be used without an answer, was confirmed.
  private func confirmationInGrace(_ id: WrappingKeyID) -> UInt64? {
    guard view.withLock({ $0.held[id] }) != nil, let entry = standings.withLock({ $0.entries[id] }),
      let end = graceEnd(entry.confirmedAt), monotonicNanoseconds() < end
    else { return nil }
    return entry.confirmedAt
  }

  /// When the grace is over of what was confirmed at `confirmedAt`; nil where there is none.
  func graceEnd(_ confirmedAt: UInt64) -> UInt64? {
    let settings = environment.settings()
    guard settings.wrappingKeyTTLNanoseconds > 0 else { return nil }
    return confirmedAt + settings.wrappingKeyTTLNanoseconds + settings.outageGraceNanoseconds
  }

  /// Has readers go on, unless the answer came meanwhile.
  private func goOn(_ id: WrappingKeyID, confirmedAt: UInt64) -> HeldWrappingKey? {
    guard let end = graceEnd(confirmedAt), monotonicNanoseconds() < end,
      let held = view.withLock({ $0.held[id] })
    else { return nil }
    return standings.withLock { standings in
      guard let entry = standings.entries[id], entry.asking != nil, entry.confirmedAt == confirmedAt
      else { return nil }
      if case .denied = entry.standing { return nil }
      held.servableUntil.store(end, ordering: .relaxed)
      return held
    }
  }
}

/// Resumes with whichever comes first.
private final class FirstAnswer<Value: Sendable>: Sendable {
  private let continuation: Mutex<CheckedContinuation<Value, Never>?>

  init(_ continuation: CheckedContinuation<Value, Never>) { self.continuation = Mutex(continuation) }

  func take(_ value: Value) {
    let waiting = continuation.withLock { waiting in
      defer { waiting = nil }
      return waiting
    }
    waiting?.resume(returning: value)
  }
}
