internal import Dispatch
internal import KeyringCore
internal import Synchronization
internal import TenantRegistry

// Invariants of a tenant's pipeline, all of its state being confined to the tenant's serial queue:
//
//  1. `accepted` is `durable` plus the commits of `flushing` plus those of `waiting`, in this order.
//  2. A commit is validated against `accepted`, never against what readers see.
//  3. At most one flush is under way; it runs on a flush thread and touches nothing of the pipeline but by coming back to the queue.
//  4. Readers see a state only after its flush is durable; replies go out only after readers see it.
//  5. A failed flush fails its batch and everything behind it. After anything but `unavailable`, nothing in memory is trusted:
//     the pipeline is dead, and the keyring is loaded anew.
//  6. `flushed` is the state behind `flushing`: what `durable` becomes.
//  7. While a replacement (compaction, rotate-keys) is written, commits go on, and each that becomes durable is added to its tail; while files
//     change, nothing is flushing or waiting, and what arrives is deferred, not lost.

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

  struct Accepted {
    let commit: Commit
    let authenticator: HeldWrappingKey
    let outcome: CommitOutcome
    var completions: [@Sendable (Result<CommitOutcome, CommitFailure>) -> Void]
  }

  struct RequestName: Hashable {
    let caller: String
    let id: IdempotencyID
  }

  let queue: DispatchQueue
  let store: any KeyringStore
  let runOnDisk: @Sendable (FlushPools.Kind, @escaping @Sendable () -> Void) -> Void
  let limits: @Sendable () -> KeyringLimits
  let overLimit: @Sendable (KeyringLimits.Excess) -> Void
  /// Monotonic nanoseconds at which the flush or replacement under way began; 0 if none is. For those who look from outside the queue.
  let flushBegan = Atomic<UInt64>(0)
  weak let observer: (any Observer)?

  var durable: KeyringState
  var accepted: KeyringState
  /// What `durable` becomes when the flush under way succeeds. One state a batch: a commit changes in place what its batch owns alone.
  var flushed: KeyringState
  var position: StorePosition
  var window: IdempotencyWindow
  var flushing: [Accepted] = []
  var waiting: [Accepted] = []
  var isFlushing = false
  var underWay: [RequestName: UInt64] = [:]
  var deferred: [@Sendable () -> Void] = []
  var replacements: [PendingReplacement] = []
  var replacement: ReplacementUnderWay?
  var dead: StoreError?
  /// Set by `stop`: nothing more is accepted; what was, still becomes durable.
  var stopped: StoreError?
  var whenIdle: [@Sendable () -> Void] = []

  struct PendingReplacement: Sendable {
    let make: @Sendable (ReplacementSource) -> Result<Replacement, ServiceError>
    /// What a commit made since is in the new file.
    let adapt: @Sendable (Commit) throws(ServiceError) -> Commit
    /// Authenticates the file that is replaced.
    let former: HeldWrappingKey
    /// Who asked for it.
    let caller: String
    let completion: @Sendable (Result<StorePosition, ServiceError>) -> Void
  }

  /// - Parameter runOnDisk: runs a blocking closure on a thread of the store's file system.
  init(
    queue: DispatchQueue,
    store: any KeyringStore,
    loaded: LoadedKeyring,
    observer: any Observer,
    limits: @escaping @Sendable () -> KeyringLimits,
    overLimit: @escaping @Sendable (KeyringLimits.Excess) -> Void,
    runOnDisk: @escaping @Sendable (FlushPools.Kind, @escaping @Sendable () -> Void) -> Void
  ) {
    self.queue = queue
    self.store = store
    self.observer = observer
    self.runOnDisk = runOnDisk
    self.limits = limits
    self.overLimit = overLimit
    durable = loaded.state
    accepted = loaded.state
    flushed = loaded.state
    position = loaded.position
    window = loaded.idempotency
  }

  // MARK: Changes

  /// Prepares a change for a state; computes, and waits for nothing.
  typealias Again = @Sendable (KeyringState) throws(ServiceError) -> PreparedChange

  /// Validates a change and adds it to the next batch; `completion` is called on the queue once its fate is known.
  ///
  /// - Parameter again: prepares the change anew, on the queue, for the state that it meets there: for one that another change overtook.
  func submit(
    _ change: PreparedChange,
    again: Again?,
    completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) {
    queue.async { self.accept(change, again, completion) }
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

  var refusal: StoreError? { dead ?? stopped }

  func accept(
    _ change: PreparedChange,
    _ again: Again?,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) {
    dispatchPrecondition(condition: .onQueue(queue))
    if let refusal { return completion(.failure(.failed(refused(change, refusal)))) }
    if replacement?.isSwitching == true {
      return deferred.append { self.accept(change, again, completion) }
    }
    do throws(CommitFailure) {
      change.deadline.mayBegin()
      if try isRepeated(change, completion) { return }
      try enqueue(change, completion)
    } catch .outdated {
      acceptAgain(again, completion)
    } catch {
      completion(.failure(error))
    }
  }

  /// A change that comes after the failure did not happen, unless it is one that was sent before.
  private func refused(_ change: PreparedChange, _ refusal: StoreError) -> ServiceError {
    guard case .outcomeUnknown(let what) = refusal, change.idempotency == nil else {
      return ServiceError(refusal)
    }
    return .storageUnavailable("the storage must be recovered: \(what)")
  }

  private func acceptAgain(
    _ again: Again?,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) {
    guard let again else { return completion(.failure(.outdated)) }
    do {
      try enqueue(try again(accepted), completion)
    } catch let error as ServiceError {
      completion(.failure(.failed(error)))
    } catch let error as CommitFailure {
      completion(.failure(error))
    } catch {
      completion(.failure(.failed(.defect("\(error)"))))
    }
  }

  private func isRepeated(
    _ change: PreparedChange,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) throws(CommitFailure) -> Bool {
    guard let idempotency = change.idempotency else { return false }
    do throws(KeyringError) {
      return try answerRepeated(change.caller, idempotency.id, idempotency.requestHash, completion)
    } catch {
      throw .failed(.keyring(error))
    }
  }

  /// A version that does not follow means that another change came between preparing and accepting.
  func isOutdated(_ error: KeyringError) -> Bool {
    if case .inconsistent = error { return true }
    return false
  }

  func enqueue(
    _ change: PreparedChange,
    _ completion: @escaping @Sendable (Result<CommitOutcome, CommitFailure>) -> Void
  ) throws(CommitFailure) {
    guard change.deadline.mayExecute() else { throw .failed(.timeout) }
    guard change.isStillWanted() else { throw .failed(.wrappingKeyReplaced) }
    let sequence = accepted.sequence + 1
    let commit = Commit(
      sequence: sequence,
      timeMilliseconds: unixMilliseconds(),
      caller: change.caller,
      idempotency: change.idempotency,
      operations: change.operations
    )
    guard isWriteKeyKnown(change.writeKey, commit) else { throw .outdated }
    // Of what is accepted, durable or on its way: those who come at one time cannot pass together.
    let excess = accepted.excess(of: commit, over: limits())
    do throws(KeyringError) {
      if excess == nil {
        try accepted.apply(commit)
      } else {
        var trial = accepted  // what else is wrong with it is said first
        try trial.apply(commit)
      }
    } catch {
      throw isOutdated(error) ? .outdated : .failed(.keyring(error))
    }
    if let excess {
      overLimit(excess)
      throw .failed(.throttled(LimitKind(excess).message, retryAfterMilliseconds: 0))
    }
    let outcome = CommitOutcome(sequence: sequence, versions: change.versions)
    if let idempotency = change.idempotency {
      underWay[RequestName(caller: change.caller, id: idempotency.id)] = sequence
    }
    waiting.append(
      Accepted(
        commit: commit,
        authenticator: change.writeKey,
        outcome: outcome,
        completions: [completion]
      )
    )
    startFlush()
  }

  /// The key that authenticates the batch is part of the keyring, or becomes it by this very commit.
  private func isWriteKeyKnown(_ key: HeldWrappingKey, _ commit: Commit) -> Bool {
    accepted.wrappingKeys[key.wrappingKeyID] != nil
      || commit.operations.contains {
        if case .addWrappingKey(let added) = $0 { added.id == key.wrappingKeyID } else { false }
      }
  }

  /// - Returns: true where the request was sent before: `completion` then gets its outcome, once that is durable.
  func answerRepeated(
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

  func join(
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

  func startFlush() {
    dispatchPrecondition(condition: .onQueue(queue))
    guard !isFlushing, !waiting.isEmpty, dead == nil else { return }
    isFlushing = true
    flushBegan.store(monotonicNanoseconds(), ordering: .relaxed)
    swap(&flushing, &waiting)
    flushed = accepted
    let commits = flushing.map(\.commit)
    let authenticator = flushing[flushing.count - 1].authenticator
    let expecting = position
    runOnDisk(.commit) {
      let result = Result { () throws(StoreError) in
        try self.store.append(commits, expecting: expecting, authenticator: authenticator)
      }
      self.queue.async { self.finishFlush(result) }
    }
  }

  func finishFlush(_ result: Result<StorePosition, StoreError>) {
    dispatchPrecondition(condition: .onQueue(queue))
    isFlushing = false
    flushBegan.store(0, ordering: .relaxed)
    let batch = flushing
    flushing = []
    switch result {
    case .success(let position):
      durable = flushed
      publish(batch, at: position)
      for item in batch { item.completions.forEach { $0(.success(item.outcome)) } }
      startFlush()
      switchIfIdle()
    case .failure(let error):
      failFlush(batch, error)
    }
    reportIdle()
  }

  func publish(_ batch: [Accepted], at position: StorePosition) {
    self.position = position
    // Of a replacement that gives up for its tail, that no more is kept.
    if let tail = replacement?.tail.count, tail <= Self.tailMax { replacement?.tail += batch.map(\.commit) }
    for item in batch {
      window.insert(item.commit)
      guard let idempotency = item.commit.idempotency else { continue }
      underWay[RequestName(caller: item.commit.caller, id: idempotency.id)] = nil
    }
    observer?.pipeline(published: durable, position: position)
  }

  func failFlush(_ batch: [Accepted], _ error: StoreError) {
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
    switchIfIdle()
  }

  func isFatal(_ error: StoreError) -> Bool {
    switch error {
    case .changed, .damaged, .outcomeUnknown, .busy: true
    case .unavailable, .authenticatorUnavailable: false
    }
  }

  func die(_ error: StoreError) {
    dead = error
    failReplacements(error)
    observer?.pipeline(failed: error)
    resumeDeferred()
  }
}
