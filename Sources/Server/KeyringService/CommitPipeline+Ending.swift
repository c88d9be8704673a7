internal import Dispatch
internal import KeyringCore

extension CommitPipeline {
  // MARK: Ending

  /// Runs `body` on the queue once everything accepted so far is durable or has failed.
  func drain(_ body: @escaping @Sendable () -> Void) {
    queue.async {
      self.whenIdle.append(body)
      self.reportIdle()
    }
  }

  func reportIdle() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, replacement == nil, waiting.isEmpty else { return }
    let bodies = whenIdle
    whenIdle = []
    for body in bodies { body() }
  }

  /// Refuses everything from here on but what was accepted; for a tenant that closes.
  func stop(_ error: StoreError) {
    queue.async {
      self.stopped = error
      self.failReplacements(error)
      self.switchIfIdle()
      if self.replacement == nil { self.resumeDeferred() }
    }
  }

  func failReplacements(_ error: StoreError) {
    let pending = replacements
    replacements = []
    for replacement in pending { replacement.completion(.failure(ServiceError(error))) }
  }
}
