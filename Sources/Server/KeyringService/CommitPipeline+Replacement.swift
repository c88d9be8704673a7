internal import Dispatch
internal import KeyringCore
internal import Synchronization

extension CommitPipeline {
  // MARK: Replacement

  /// Replaces the storage file: once nothing is waiting, `make` is run on a flush thread with the durable state.
  func replace(
    _ make: @escaping @Sendable (ReplacementSource) -> Result<Replacement, ServiceError>,
    completion: @escaping @Sendable (Result<StorePosition, ServiceError>) -> Void
  ) {
    queue.async {
      if let refusal = self.refusal { return completion(.failure(ServiceError(refusal))) }
      self.replacements.append(PendingReplacement(make: make, completion: completion))
      self.startReplacement()
    }
  }

  func startReplacement() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, !isReplacing, waiting.isEmpty, dead == nil, !replacements.isEmpty else { return }
    isReplacing = true
    flushBegan.store(monotonicNanoseconds(), ordering: .relaxed)
    let replacement = replacements.removeFirst()
    let source = ReplacementSource(state: durable, idempotency: window)
    let expecting = position
    runOnDisk(.long) {
      let result = self.makeAndStore(replacement, source, expecting)
      self.queue.async { self.finishReplacement(replacement, result) }
    }
  }

  private enum ReplacementFailure: Error {
    case notMade(ServiceError)
    case notStored(StoreError)
  }

  private func makeAndStore(
    _ replacement: PendingReplacement,
    _ source: ReplacementSource,
    _ expecting: StorePosition
  ) -> Result<(KeyringState, StorePosition), ReplacementFailure> {
    switch replacement.make(source) {
    case .failure(let error): return .failure(.notMade(error))
    case .success(let made):
      do {
        let state = try KeyringState(made.image)
        let position = try store.replace(
          with: made.image,
          expecting: expecting,
          authenticator: made.authenticator
        )
        return .success((state, position))
      } catch let error as StoreError {
        return .failure(.notStored(error))
      } catch {
        return .failure(.notMade(.defect("a replacement contradicts itself: \(error)")))
      }
    }
  }

  private func finishReplacement(
    _ replacement: PendingReplacement,
    _ result: Result<(KeyringState, StorePosition), ReplacementFailure>
  ) {
    dispatchPrecondition(condition: .onQueue(queue))
    isReplacing = false
    flushBegan.store(0, ordering: .relaxed)
    switch result {
    case .success(let (state, position)):
      durable = state
      accepted = state
      publish([], at: position)
      replacement.completion(.success(position))
    case .failure(.notMade(let error)):
      replacement.completion(.failure(error))
    case .failure(.notStored(let error)):
      if isFatal(error) { die(error) }
      replacement.completion(.failure(ServiceError(error)))
    }
    startReplacement()
    if !isReplacing { resumeDeferred() }
    reportIdle()
  }

  func resumeDeferred() {
    let work = deferred
    deferred = []
    for resume in work { resume() }
  }
}
