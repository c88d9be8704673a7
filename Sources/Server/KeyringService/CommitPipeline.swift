internal import Dispatch
internal import KeyringCore

// Invariants of a tenant's pipeline, all of its state being confined to the tenant's serial queue:
//
//  1. `accepted` is `durable` plus the commits of `flushing` plus those of `waiting`, in this order.
//  2. A commit is validated against `accepted`, never against what readers see.
//  3. At most one flush is under way; it runs on a flush thread and touches nothing of the pipeline but by coming back to the queue.
//  4. Readers see a state only after its flush is durable; replies go out only after readers see it.
//  5. A failed flush fails its batch and everything behind it. After anything but `unavailable`, nothing in memory is trusted:
//     the pipeline is dead, and the keyring is loaded anew.
//  6. A replacement (compaction, rotate-keys) begins only when nothing is waiting; what arrives meanwhile is deferred, not lost.

/// What a change needs to become a commit: operations already sealed, and how its caller is to be answered.
struct PreparedChange: Sendable {
  let operations: [Operation]
  /// The wrapping key that sealed the records: still current when the change is accepted, or it is prepared anew.
  let writeKey: HeldWrappingKey
  let caller: String
  let idempotency: Commit.Idempotency?
  /// The versions made, in order; 0 for a remove.
  let versions: [UInt32]
  let deadline: UInt64
}

/// What a commit became.
struct CommitOutcome: Sendable, Equatable {
  let sequence: UInt64
  let versions: [UInt32]
}

/// Why a change was not committed.
enum CommitFailure: Error, Sendable, Equatable {
  /// Something changed since it was prepared: prepare it again.
  case outdated
  /// It failed.
  case failed(ServiceError)
}

/// What a replacement is made from, and gives.
struct ReplacementSource: Sendable {
  let state: KeyringState
  let idempotency: IdempotencyWindow
}

/// A new whole keyring, the key that authenticates it, and what readers see after it.
struct Replacement: Sendable {
  let image: KeyringImage
  let authenticator: HeldWrappingKey
}

/// One keyring's transactions: validated one by one on a serial queue, made durable by batches.
///
/// An actor is not a transaction: nothing here awaits between reading the state and changing it.
final class CommitPipeline: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because every mutable property is touched on `queue` alone; each method that does asserts it.

  /// Told on the queue, in order.
  protocol Observer: AnyObject, Sendable {
    /// A state became durable: show it to readers.
    func pipeline(published state: KeyringState, position: StorePosition)
    /// Nothing in memory is trusted any more.
    func pipeline(failed error: StoreError)
  }

  private struct Accepted {
    let commit: Commit
    let state: KeyringState
    let authenticator: HeldWrappingKey
    let outcome: CommitOutcome
    var completions: [@Sendable (Result<CommitOutcome, CommitFailure>) -> Void]
  }

  private struct RequestName: Hashable {
    let caller: String
    let id: IdempotencyID
  }

  private let queue: DispatchQueue
  private let store: any KeyringStore
  private let runFlush: @Sendable (@escaping @Sendable () -> Void) -> Void
  private let keysMax: @Sendable () -> Int
  private weak let observer: (any Observer)?

  private var durable: KeyringState
  private var accepted: KeyringState
  private var position: StorePosition
  private var window: IdempotencyWindow
  private var flushing: [Accepted] = []
  private var waiting: [Accepted] = []
  private var isFlushing = false
  private var flushStarted: UInt64 = 0
  private var underWay: [RequestName: UInt64] = [:]
  private var deferred: [@Sendable () -> Void] = []
  private var replacements: [PendingReplacement] = []
  private var isReplacing = false
  private var dead: StoreError?
  private var whenIdle: [@Sendable () -> Void] = []

  private struct PendingReplacement {
    let make: @Sendable (ReplacementSource) -> Result<Replacement, ServiceError>
    let completion: @Sendable (Result<StorePosition, ServiceError>) -> Void
  }

  /// - Parameter runFlush: runs a blocking closure on a flush thread of the store's file system.
  init(
    queue: DispatchQueue,
    store: any KeyringStore,
    loaded: LoadedKeyring,
    observer: any Observer,
    keysMax: @escaping @Sendable () -> Int,
    runFlush: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void
  ) {
    self.queue = queue
    self.store = store
    self.observer = observer
    self.runFlush = runFlush
    self.keysMax = keysMax
    durable = loaded.state
    accepted = loaded.state
    position = loaded.position
    window = loaded.idempotency
  }

  // MARK: Changes

  /// Validates a change and adds it to the next batch; `completion` is called on the queue once its fate is known.
  func submit(
    _ change: PreparedChange,
    completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) {
    queue.async { self.accept(change, completion) }
  }

  /// Answers a request that was sent before: its outcome once durable, or nil if it is new.
  func findRequest(
    caller: String,
    id: IdempotencyID,
    requestHash: Digest,
    completion: @escaping @Sendable (Result<CommitOutcome?, CommitFailure>) -> Void
  ) {
    queue.async {
      do throws(KeyringError) {
        let isRepeated = try self.answerRepeated(caller, id, requestHash) { completion($0.map { $0 }) }
        if !isRepeated { completion(.success(nil)) }
      } catch {
        completion(.failure(.failed(.keyring(error))))
      }
    }
  }

  private func accept(
    _ change: PreparedChange,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) {
    dispatchPrecondition(condition: .onQueue(queue))
    if let dead { return completion(.failure(.failed(ServiceError(dead)))) }
    if isReplacing || !replacements.isEmpty {
      return deferred.append { self.accept(change, completion) }
    }
    do {
      if let idempotency = change.idempotency {
        let repeated = try answerRepeated(change.caller, idempotency.id, idempotency.requestHash, completion)
        if repeated { return }
      }
      try enqueue(change, completion)
    } catch let error as KeyringError {
      completion(.failure(isOutdated(error) ? .outdated : .failed(.keyring(error))))
    } catch let error as CommitFailure {
      completion(.failure(error))
    } catch {
      completion(.failure(.failed(.defect("\(error)"))))
    }
  }

  /// A version that does not follow means that another change came between preparing and accepting.
  private func isOutdated(_ error: KeyringError) -> Bool {
    if case .inconsistent = error { return true }
    return false
  }

  private func enqueue(
    _ change: PreparedChange,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) throws {
    guard monotonicNanoseconds() < change.deadline else { throw CommitFailure.failed(.timeout) }
    let sequence = accepted.sequence + 1
    let commit = Commit(
      sequence: sequence,
      timeMilliseconds: unixMilliseconds(),
      caller: change.caller,
      idempotency: change.idempotency,
      operations: change.operations
    )
    var next = accepted
    try next.apply(commit)
    guard next.wrappingKeys[change.writeKey.wrappingKeyID] != nil else { throw CommitFailure.outdated }
    guard next.keyCount <= max(keysMax(), accepted.keyCount) else {
      throw CommitFailure.failed(
        .throttled("the tenant has as many keys as it may", retryAfterMilliseconds: 0)
      )
    }
    accepted = next
    let outcome = CommitOutcome(sequence: sequence, versions: change.versions)
    if let idempotency = change.idempotency {
      underWay[RequestName(caller: change.caller, id: idempotency.id)] = sequence
    }
    waiting.append(
      Accepted(
        commit: commit,
        state: next,
        authenticator: change.writeKey,
        outcome: outcome,
        completions: [completion]
      )
    )
    startFlush()
  }

  /// - Returns: true where the request was sent before: `completion` then gets its outcome, once that is durable.
  private func answerRepeated(
    _ caller: String,
    _ id: IdempotencyID,
    _ requestHash: Digest,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) throws(KeyringError) -> Bool {
    dispatchPrecondition(condition: .onQueue(queue))
    if let sequence = underWay[RequestName(caller: caller, id: id)] {
      try join(sequence, requestHash, completion)
      return true
    }
    guard
      let entry = try window.find(
        caller: caller,
        id: id,
        requestHash: requestHash,
        nowMilliseconds: unixMilliseconds()
      )
    else { return false }
    completion(.success(CommitOutcome(sequence: entry.sequence, versions: entry.idempotency.versions)))
    return true
  }

  private func join(
    _ sequence: UInt64,
    _ requestHash: Digest,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) throws(KeyringError) {
    func joined(_ batch: inout [Accepted]) throws(KeyringError) -> Bool {
      guard let index = batch.firstIndex(where: { $0.commit.sequence == sequence }) else { return false }
      guard batch[index].commit.idempotency?.requestHash == requestHash else { throw .idempotencyMismatch }
      batch[index].completions.append(completion)
      return true
    }
    if try joined(&waiting) { return }
    if try joined(&flushing) { return }
    throw .inconsistent("a request under way is in no batch")
  }

  // MARK: Flushing

  private func startFlush() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, !waiting.isEmpty, dead == nil else { return }
    isFlushing = true
    flushStarted = monotonicNanoseconds()
    swap(&flushing, &waiting)
    let commits = flushing.map(\.commit)
    let authenticator = flushing[flushing.count - 1].authenticator
    let expecting = position
    runFlush {
      let result = Result { () throws(StoreError) in
        try self.store.append(commits, expecting: expecting, authenticator: authenticator)
      }
      self.queue.async { self.finishFlush(result) }
    }
  }

  private func finishFlush(_ result: Result<StorePosition, StoreError>) {
    dispatchPrecondition(condition: .onQueue(queue))
    isFlushing = false
    let batch = flushing
    flushing = []
    switch result {
    case .success(let position):
      publish(batch, at: position)
      for item in batch { item.completions.forEach { $0(.success(item.outcome)) } }
      startFlush()
      startReplacement()
    case .failure(let error):
      failFlush(batch, error)
    }
    reportIdle()
  }

  private func publish(_ batch: [Accepted], at position: StorePosition) {
    self.position = position
    for item in batch {
      guard let idempotency = item.commit.idempotency else { continue }
      let commit = item.commit
      underWay[RequestName(caller: commit.caller, id: idempotency.id)] = nil
      window.insert(
        IdempotencyWindow.Entry(
          caller: commit.caller,
          idempotency: idempotency,
          sequence: commit.sequence,
          timeMilliseconds: commit.timeMilliseconds
        )
      )
    }
    if let last = batch.last { durable = last.state }
    observer?.pipeline(published: durable, position: position)
  }

  private func failFlush(_ batch: [Accepted], _ error: StoreError) {
    let behind = waiting
    waiting = []
    underWay = [:]
    accepted = durable
    if isFatal(error) { die(error) }
    let ofBatch = CommitFailure.failed(ServiceError(error))
    for item in batch { item.completions.forEach { $0(.failure(ofBatch)) } }
    // What was behind was never written: it definitely did not happen.
    let ofBehind = CommitFailure.failed(.storageUnavailable("the write before this one failed: \(error)"))
    for item in behind { item.completions.forEach { $0(.failure(ofBehind)) } }
    startReplacement()
  }

  private func isFatal(_ error: StoreError) -> Bool {
    switch error {
    case .changed, .damaged, .outcomeUnknown, .busy: true
    case .unavailable, .authenticatorUnavailable: false
    }
  }

  private func die(_ error: StoreError) {
    dead = error
    let failure = ServiceError(error)
    for replacement in replacements { replacement.completion(.failure(failure)) }
    replacements = []
    observer?.pipeline(failed: error)
    resumeDeferred()
  }

  // MARK: Replacement

  /// Replaces the storage file: once nothing is waiting, `make` is run on a flush thread with the durable state.
  func replace(
    _ make: @escaping @Sendable (ReplacementSource) -> Result<Replacement, ServiceError>,
    completion: @escaping @Sendable (Result<StorePosition, ServiceError>) -> Void
  ) {
    queue.async {
      if let dead = self.dead { return completion(.failure(ServiceError(dead))) }
      self.replacements.append(PendingReplacement(make: make, completion: completion))
      self.startReplacement()
    }
  }

  private func startReplacement() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, !isReplacing, waiting.isEmpty, dead == nil, !replacements.isEmpty else { return }
    isReplacing = true
    flushStarted = monotonicNanoseconds()
    let replacement = replacements.removeFirst()
    let source = ReplacementSource(state: durable, idempotency: window)
    let expecting = position
    runFlush {
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

  private func resumeDeferred() {
    let work = deferred
    deferred = []
    for resume in work { resume() }
  }

  // MARK: Ending

  /// Runs `body` on the queue once everything accepted so far is durable or has failed.
  func drain(_ body: @escaping @Sendable () -> Void) {
    queue.async {
      self.whenIdle.append(body)
      self.reportIdle()
    }
  }

  private func reportIdle() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, !isReplacing, waiting.isEmpty else { return }
    let bodies = whenIdle
    whenIdle = []
    for body in bodies { body() }
  }

  /// Refuses everything from here on; for a tenant that closes.
  func stop(_ error: StoreError) {
    queue.async {
      if self.dead == nil { self.dead = error }
    }
  }

  /// For how long the flush under way has been, in nanoseconds; 0 if none is.
  func flushAge(_ completion: @escaping @Sendable (UInt64) -> Void) {
    queue.async {
      let runs = self.isFlushing || self.isReplacing
      completion(runs ? monotonicNanoseconds() - self.flushStarted : 0)
    }
  }
}
