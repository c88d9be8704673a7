internal import Dispatch
internal import KeyringCore
internal import Synchronization

extension CommitPipeline {
  // MARK: Replacement

  /// A replacement under way. While its file is written, commits go on; what they make durable is added to it, and only for the last few of
  /// them, and the change of files, do new ones wait.
  struct ReplacementUnderWay {
    let wanted: PendingReplacement
    /// Made durable since the snapshot, and not yet in the new file.
    var tail: [Commit] = []
    /// Times that commits were added to the new file.
    var rounds = 0
    /// The new file, once its snapshot is written.
    var draft: Draft?
    /// New commits wait: the next step puts the new file in place.
    var isSwitching = false
    /// A step is on a thread of the disk.
    var isBusy = true
  }

  /// A new file, and the state that it holds.
  struct Draft: Sendable {
    let file: any KeyringReplacement
    let authenticator: HeldWrappingKey
    var state: KeyringState
  }

  enum ReplacementFailure: Error {
    case notMade(ServiceError)
    case notStored(StoreError)
  }

  /// As many commits are added with new ones waiting; more, while they go on.
  static let switchingCommitsMax = 16
  /// So often, at most, commits are added while new ones go on; then they wait, however many these are.
  static let roundsMax = 8

  /// A tail with more commits than this ends the replacement: memory is bounded.
  static let tailMax = 250_000

  private static let tailTooLong = ServiceError.storageUnavailable(
    "too much changed while the storage was written anew"
  )

  /// Writes storage anew. `make` is run off the queue with the durable state; `adapt` with each commit made durable from then on, and answers
  /// what it is in the new file.
  func replace(_ wanted: PendingReplacement) {
    queue.async {
      if let refusal = self.refusal { return wanted.completion(.failure(ServiceError(refusal))) }
      self.replacements.append(wanted)
      self.startReplacement()
    }
  }

  func startReplacement() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard replacement == nil, refusal == nil, !replacements.isEmpty else { return }
    let wanted = replacements.removeFirst()
    replacement = ReplacementUnderWay(wanted: wanted)
    let source = ReplacementSource(state: durable, idempotency: window)
    let (store, position) = (self.store, self.position)
    runOnDisk(.rewriting) {
      let result = Result { () throws(ReplacementFailure) in
        try Self.begin(wanted.make(source), in: store, at: position)
      }
      self.queue.async { self.advance(result) }
    }
  }

  private static func begin(
    _ made: Result<Replacement, ServiceError>,
    in store: any KeyringStore,
    at position: StorePosition
  ) throws(ReplacementFailure) -> Draft {
    switch made {
    case .failure(let error): throw .notMade(error)
    case .success(let made):
      let state: KeyringState
      do throws(KeyringError) {
        state = try KeyringState(made.image)
      } catch {
        throw .notMade(.defect("a replacement contradicts itself: \(error)"))
      }
      do throws(StoreError) {
        let file = try store.beginReplacement(
          with: made.image,
          at: position,
          authenticator: made.authenticator
        )
        return Draft(file: file, authenticator: made.authenticator, state: state)
      } catch {
        throw .notStored(error)
      }
    }
  }

  /// A step is done: adds what was committed meanwhile, or changes files once that is little.
  private func advance(_ result: Result<Draft, ReplacementFailure>) {
    dispatchPrecondition(condition: .onQueue(queue))
    guard var underWay = replacement else { return }
    switch result {
    case .failure(let error): return endReplacement(.failure(error))
    case .success(let draft):
      underWay.draft = draft
      underWay.isBusy = false
      underWay.rounds += 1
      underWay.isSwitching =
        underWay.tail.count <= Self.switchingCommitsMax || underWay.rounds >= Self.roundsMax
      replacement = underWay
    }
    if let refusal { return endReplacement(.failure(.notMade(overtaken(by: refusal)))) }
    if underWay.tail.count > Self.tailMax { return endReplacement(.failure(.notMade(Self.tailTooLong))) }
    if underWay.isSwitching { return switchIfIdle() }
    addTail()
  }

  private func takeTail() -> [Commit] {
    defer { replacement?.tail = [] }
    return replacement?.tail ?? []
  }

  private func addTail() {
    guard let underWay = replacement, let draft = underWay.draft else { return }
    let commits = takeTail()
    replacement?.isBusy = true
    runOnDisk(.rewriting) {
      let result = Result { () throws(ReplacementFailure) in
        let (adapted, next) = try Self.adapted(commits, to: draft, underWay.wanted.adapt)
        do throws(StoreError) {
          try draft.file.append(adapted, authenticator: draft.authenticator)
        } catch {
          throw .notStored(error)
        }
        return next
      }
      self.queue.async { self.advance(result) }
    }
  }

  private static func adapted(
    _ commits: [Commit],
    to draft: Draft,
    _ adapt: (Commit) throws(ServiceError) -> Commit
  ) throws(ReplacementFailure) -> ([Commit], Draft) {
    var (made, next): ([Commit], Draft) = ([], draft)
    do {
      for commit in commits {
        let commit = try adapt(commit)
        try next.state.apply(commit)
        made.append(commit)
      }
    } catch let error as ServiceError {
      throw .notMade(error)
    } catch {
      throw .notMade(.storageUnavailable("the keyring changed too much meanwhile: \(error)"))
    }
    return (made, next)
  }

  /// The old file stands, whatever became of the commit that failed.
  private func overtaken(by refusal: StoreError) -> ServiceError {
    .storageUnavailable("the storage failed, or was closed, while it was written anew: \(refusal)")
  }

  // MARK: The change of files

  /// Changes files once nothing is being flushed or waits to be.
  func switchIfIdle() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard let underWay = replacement, underWay.isSwitching, !underWay.isBusy, let draft = underWay.draft,
      !isFlushing, waiting.isEmpty
    else { return }
    if let refusal { return endReplacement(.failure(.notMade(overtaken(by: refusal)))) }
    if underWay.tail.count > Self.tailMax { return endReplacement(.failure(.notMade(Self.tailTooLong))) }
    replacement?.isBusy = true
    flushBegan.store(monotonicNanoseconds(), ordering: .relaxed)
    let (commits, expecting, wanted) = (takeTail(), position, underWay.wanted)
    runOnDisk(.commit) {
      let result = Result { () throws(ReplacementFailure) in
        try Self.finish(draft, commits, expecting, wanted)
      }
      self.queue.async { self.finishReplacement(result) }
    }
  }

  private static func finish(
    _ draft: Draft,
    _ commits: [Commit],
    _ expecting: StorePosition,
    _ wanted: PendingReplacement
  ) throws(ReplacementFailure) -> (KeyringState, StorePosition) {
    let last = Commit(
      sequence: expecting.sequence + 1,
      timeMilliseconds: unixMilliseconds(),
      caller: wanted.caller,
      idempotency: nil,
      operations: [.replaced(expecting)]
    )
    let (adapted, next) = try adapted(commits + [last], to: draft) { commit throws(ServiceError) in
      commit.sequence == last.sequence ? commit : try wanted.adapt(commit)
    }
    do throws(StoreError) {
      let position = try draft.file.finish(
        adapted,
        expecting: expecting,
        former: wanted.former,
        authenticator: draft.authenticator
      )
      return (next.state, position)
    } catch {
      throw .notStored(error)
    }
  }

  private func finishReplacement(
    _ result: Result<(KeyringState, StorePosition), ReplacementFailure>
  ) {
    dispatchPrecondition(condition: .onQueue(queue))
    flushBegan.store(0, ordering: .relaxed)
    if case .success(let (state, position)) = result {
      durable = state
      accepted = state
      publish([], at: position)
    }
    endReplacement(result.map { $0.1 })
  }

  /// The new file stands, or the old one does; what waited goes on.
  private func endReplacement(_ result: Result<StorePosition, ReplacementFailure>) {
    guard let ended = replacement else { return }
    replacement = nil
    switch result {
    case .success(let position): ended.wanted.completion(.success(position))
    case .failure(let failure):
      if let draft = ended.draft {
        let file = draft.file
        runOnDisk(.rewriting) { file.abandon() }
      }
      fail(ended.wanted, failure)
    }
    startReplacement()
    resumeDeferred()
    reportIdle()
  }

  private func fail(_ wanted: PendingReplacement, _ failure: ReplacementFailure) {
    switch failure {
    case .notMade(let error): wanted.completion(.failure(error))
    case .notStored(let error):
      if dead == nil, stopped == nil, isFatal(error) { die(error) }
      wanted.completion(.failure(ServiceError(error)))
    }
  }

  func resumeDeferred() {
    let work = deferred
    deferred = []
    for resume in work { resume() }
  }
}
