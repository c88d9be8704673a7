internal import SecureMemory
public import WireProtocol

extension KeyringClient {
  /// How many fetches of one comparison are under way at a time.
  static let fetchesInFlight = 32

  /// How a key stands with the keyring.
  public enum Comparison: Sendable, Equatable {
    case absent
    /// The newest version has this type and this material.
    case same
    case differs
  }

  /// Stores up to 10,000 keys, all or none, in one commit.
  ///
  /// - Returns: the keyring's sequence after it.
  /// - Throws: `KeyringClientError`; `.refused` with MESSAGE_TOO_LARGE, and nothing sent, where they are over `ImportLimits`.
  public func importKeys(
    _ keys: [ImportedKey],
    timeout: Duration? = nil
  ) async throws(KeyringClientError) -> UInt64 {
    do throws(ImportLimits.Exceeded) {
      try ImportLimits.check(keys)
    } catch {
      throw .refused(Status(.messageTooLarge, error.description))
    }
    let (sequence, result) = try await call(.importKeys(keys), timeout: timeout)
    guard case .importKeys(let stored) = result, stored == UInt32(keys.count) else {
      throw .wire("the server answers an import with another result")
    }
    return sequence
  }

  /// Fetches each key's newest version and compares it with the one given, in time that depends on lengths only.
  ///
  /// - Parameter minSequence: refuse an answer from a keyring older than this.
  /// - Returns: one for each key, in their order.
  public func compare(
    _ keys: [ImportedKey],
    minSequence: UInt64 = 0
  ) async throws(KeyringClientError) -> [Comparison] {
    let result = await withTaskGroup(of: (Int, Result<Comparison, KeyringClientError>).self) { group in
      var found = [Comparison?](repeating: nil, count: keys.count)
      var next = 0
      func start() {
        guard next < keys.count else { return }
        let index = next
        next += 1
        group.addTask { (index, await self.compared(keys[index], minSequence)) }
      }
      for _ in 0..<Self.fetchesInFlight { start() }
      var failure: KeyringClientError?
      for await (index, comparison) in group {
        switch comparison {
        case .success(let comparison):
          found[index] = comparison
          if failure == nil { start() }
        case .failure(let error): failure = failure ?? error
        }
      }
      if let failure { return Result<[Comparison], KeyringClientError>.failure(failure) }
      return .success(found.compactMap { $0 })
    }
    return try result.get()
  }

  private func compared(
    _ key: ImportedKey,
    _ minSequence: UInt64
  ) async -> Result<Comparison, KeyringClientError> {
    do throws(KeyringClientError) {
      let (_, result) = try await call(.fetch(key.name, version: 0), minSequence: minSequence)
      guard case .fetch(let fetched) = result else {
        throw .wire("the server answers a fetch with another result")
      }
      guard let fetched else { return .success(.absent) }
      return .success(fetched.type == key.type && fetched.value.isEqual(to: key.value) ? .same : .differs)
    } catch {
      return .failure(error)
    }
  }
}
