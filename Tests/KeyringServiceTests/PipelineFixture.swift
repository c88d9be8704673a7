import Cryptography
import Dispatch
import KeyringCore
import KeyringStorage
import SecureMemory
import Synchronization

@testable import KeyringService

/// A store that remembers what it was given, and answers as a test says.
final class ScriptedStore: KeyringStore {
  struct State {
    var batches: [[Commit]] = []
    var images: [KeyringImage] = []
    /// Commits added to replacements.
    var replacement: [Commit] = []
    /// Where the store stood at each change of files.
    var replaced: [UInt64] = []
    var abandoned = 0
    var failures: [StoreError] = []
  }

  let state = Mutex(State())

  func answer(_ sequence: UInt64) throws(StoreError) -> StorePosition {
    let failure = state.withLock { $0.failures.isEmpty ? nil : $0.failures.removeFirst() }
    if let failure { throw failure }
    return StorePosition(sequence: sequence, digest: .zero)
  }

  func load() throws(StoreError) -> LoadedKeyring? { nil }
  func create(
    tenant: TenantName,
    id: KeyringID,
    commits: [Commit],
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition { throw .busy("not scripted") }
  func append(
    _ commits: [Commit],
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    state.withLock { $0.batches.append(commits) }
    return try answer(commits[commits.count - 1].sequence)
  }
  func beginReplacement(
    with image: KeyringImage,
    at position: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> any KeyringReplacement {
    state.withLock { $0.images.append(image) }
    _ = try answer(image.sequence)
    return ScriptedReplacement(store: self)
  }
  func read() throws(StoreError) -> LoadedKeyring { throw .busy("not scripted") }
  func accept(sequence: UInt64) throws(StoreError) {}
  func anchor(authenticator: any BatchAuthenticator) throws(StoreError) {}
  var storageBytes: UInt64 { 0 }
  func close() throws(StoreError) {}
}

/// A replacement in a scripted store.
struct ScriptedReplacement: KeyringReplacement {
  let store: ScriptedStore

  func append(_ commits: [Commit], authenticator: any BatchAuthenticator) throws(StoreError) {
    store.state.withLock { $0.replacement += commits }
    _ = try store.answer(0)
  }
  func finish(
    _ commits: [Commit],
    expecting: StorePosition,
    former: any BatchAuthenticator,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try append(commits, authenticator: authenticator)
    store.state.withLock { $0.replaced.append(expecting.sequence) }
    return StorePosition(sequence: expecting.sequence + 1, digest: .zero)
  }
  func abandon() { store.state.withLock { $0.abandoned += 1 } }
}

/// What readers were shown.
final class Watcher: CommitPipeline.Observer {
  struct Seen {
    var states: [KeyringState] = []
    var failure: StoreError?
  }

  let seen = Mutex(Seen())
  func pipeline(published state: KeyringState, position: StorePosition) {
    seen.withLock { $0.states.append(state) }
  }
  func pipeline(failed error: StoreError) { seen.withLock { $0.failure = error } }
  var sequence: UInt64 { seen.withLock { $0.states.last?.sequence ?? 1 } }
}

/// A pipeline whose flushes happen when a test says so: no disk, no sleeping.
final class PipelineFixture: Sendable {
  typealias Outcome = Result<CommitOutcome, CommitFailure>

  let store = ScriptedStore()
  let watcher = Watcher()
  let pipeline: CommitPipeline
  let writeKey: HeldWrappingKey
  private let flushes: FlushQueue

  final class FlushQueue: Sendable {
    let work = Mutex<[@Sendable () -> Void]>([])
  }

  init(limits: KeyringLimits = KeyringLimits(keys: 100, bytes: .max)) throws {
    let tenant = try TenantName("acme")
    let id = KeyringID(value: 1)
    let plaintext = try SystemRandom.secret(count: 32)
    let keyID = WrappingKeyID(value: 7)
    let commitment = try UnwrappedKey.commitment(to: plaintext, id: keyID, tenant: tenant, keyring: id)
    writeKey = try HeldWrappingKey(
      id: keyID,
      plaintext: plaintext,
      commitment: commitment,
      tenant: tenant,
      keyring: id,
      servableUntil: .max
    )
    var state = KeyringState(tenant: tenant, id: id, sequence: 1)
    try state.apply(
      .addWrappingKey(
        WrappingKey(
          id: keyID,
          cmkID: CMKID("local-1"),
          provider: .local,
          wrapped: [1],
          commitment: commitment,
          createdMilliseconds: 1
        )
      )
    )
    let flushes = FlushQueue()
    self.flushes = flushes
    pipeline = CommitPipeline(
      queue: DispatchQueue(label: "test"),
      store: store,
      loaded: LoadedKeyring(
        state: state,
        idempotency: IdempotencyWindow(),
        position: StorePosition(sequence: 1, digest: .zero),
        pendingAuthentications: [],
        storageBytes: 0,
        notices: []
      ),
      observer: watcher,
      limits: { limits },
      overLimit: { _ in },
      runOnDisk: { _, work in flushes.work.withLock { $0.append(work) } }
    )
  }

  /// Lets the queue do what it has.
  func settle() { pipeline.queue.sync {} }

  /// Does the flush or replacement that was asked for; false if none was.
  @discardableResult
  func flush() -> Bool {
    settle()
    guard let work = flushes.work.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) else { return false }
    work()
    settle()
    return true
  }

  func put(_ id: String, version: UInt32 = 1) throws -> KeyringCore.Operation {
    let identity = try KeyIdentity(scope: .shared, owner: [], keyID: Array(id.utf8))
    let type = try KeyType("AES")
    let record = try writeKey.seal(
      try SystemRandom.secret(count: 16),
      identity: identity,
      type: type,
      version: version,
      createdMilliseconds: 1
    )
    return .put(identity, type, record)
  }

  /// Submits a change; its outcome comes into the box.
  func submit(
    _ operations: [KeyringCore.Operation],
    idempotency: Commit.Idempotency? = nil,
    deadline: UInt64 = .max
  ) -> Box {
    let box = Box()
    let change = PreparedChange(
      operations: operations,
      writeKey: writeKey,
      caller: "spiffe://t/tenant/acme/instance/a",
      idempotency: idempotency,
      versions: operations.map { _ in 1 },
      deadline: RequestDeadline(deadline)
    )
    pipeline.submit(change, again: nil) { outcome in box.outcome.withLock { $0 = outcome } }
    settle()
    return box
  }

  /// Has storage written anew, with every caller made `adapted`.
  func replace() -> Mutable<Result<StorePosition, ServiceError>?> {
    let outcome = Mutable<Result<StorePosition, ServiceError>?>(nil)
    let writeKey = self.writeKey
    pipeline.replace(
      CommitPipeline.PendingReplacement(
        make: { .success(Replacement(image: Self.image($0), authenticator: writeKey)) },
        adapt: { commit in
          Commit(
            sequence: commit.sequence,
            timeMilliseconds: commit.timeMilliseconds,
            caller: "adapted",
            idempotency: commit.idempotency,
            operations: commit.operations
          )
        },
        former: writeKey,
        caller: "keyringd",
        completion: { outcome.value = $0 }
      )
    )
    settle()
    return outcome
  }

  static func image(_ source: ReplacementSource) -> KeyringImage {
    KeyringImage(
      tenant: source.state.tenant,
      id: source.state.id,
      sequence: source.state.sequence,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: Array(source.state.wrappingKeys.values),
      keys: source.state.keys,
      idempotency: source.idempotency
    )
  }

  final class Mutable<Value: Sendable>: Sendable {
    private let box: Mutex<Value>
    init(_ value: Value) { box = Mutex(value) }
    var value: Value {
      get { box.withLock { $0 } }
      set { box.withLock { $0 = newValue } }
    }
  }

  final class Box: Sendable {
    let outcome = Mutex<Outcome?>(nil)
    var value: Outcome? { outcome.withLock { $0 } }
    var sequence: UInt64? {
      if case .success(let outcome) = value { outcome.sequence } else { nil }
    }
    var failure: ServiceError? {
      if case .failure(.failed(let error)) = value { error } else { nil }
    }
  }
}
