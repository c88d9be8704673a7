public import HTTPTransport
public import KeyringCore
public import SecureMemory
internal import Synchronization

/// What is known of a tenant's credentials; nothing of it is secret.
public struct AWSCredentialsStatus: Sendable, Equatable {
  /// `file credentials`, `chain: environment`, `role arn:... over profile prod`; nil before any were had.
  public let sourceName: String?
  /// The last four characters of the access key id.
  public let accessKeyIDEnd: String?
  /// When they were had, in Unix milliseconds.
  public let loadedMilliseconds: UInt64?
  /// Unix milliseconds; nil: they stay until they are revoked.
  public let expiresMilliseconds: UInt64?
  /// Why the last attempt to have new ones failed; nil after one that did not.
  public let lastFailure: String?
}

/// One tenant's credentials: had once for all who ask, renewed before they expire, and kept while they are good where that fails.
///
/// Files and variables are read once; temporary credentials that follow from them are renewed by themselves. What an operator changes is read by
/// a new cache, which takes the place of this one once its credentials are proved.
public final class AWSCredentialsCache: AWSCredentialsSource {
  private struct Held {
    let credentials: AWSCredentials
    let loadedMilliseconds: UInt64
    /// nil: they do not expire.
    let schedule: RefreshSchedule?
  }

  private struct State {
    /// What files and variables said; nil before they were read.
    var source: (source: ResolvedSource, name: String)?
    var held: Held?
    /// The one refresh that is under way.
    var refresh: Task<Void, Never>?
    var pause = RetryPause()
    var lastFailure: String?
    /// AWS says that the held ones are not good: calls wait for others.
    var isInvalidated = false
    var invalidatedMilliseconds: UInt64?
  }

  private struct Loaded {
    let source: ResolvedSource
    let sourceName: String
    let credentials: AWSCredentials
    let milliseconds: UInt64
  }

  /// What a call does.
  private enum Action {
    case use(AWSCredentials)
    case wait(Task<Void, Never>)
    case fail(CMKError)
  }

  private let configuration: AWSCredentialsConfiguration
  private let resolver: CredentialsResolver
  private let loader: CredentialsLoader
  private let nowMilliseconds: @Sendable () -> UInt64
  private let jitter: @Sendable (ClosedRange<UInt64>) -> UInt64
  private let state = Mutex(State())

  /// The shortest time between two refreshes that `invalidate` forces.
  static let invalidationMilliseconds: UInt64 = 30_000

  /// Reads nothing and asks nobody until the first call.
  ///
  /// - Parameters:
  ///   - http: for the Security Token Service; its connections are this tenant's.
  ///   - metadata: for the endpoints of containers and instances, which are never asked through a proxy.
  ///   - variable: a variable of the environment; nil where it is not set.
  ///   - nowMilliseconds: the time, Unix milliseconds.
  ///   - jitter: a random number of a range.
  public init(
    _ configuration: AWSCredentialsConfiguration,
    http: any HTTPSending,
    metadata: any HTTPSending,
    variable: @escaping @Sendable (String) throws(SecureMemoryError) -> Secret? = ProcessEnvironment.secret,
    nowMilliseconds: @escaping @Sendable () -> UInt64,
    jitter: @escaping @Sendable (ClosedRange<UInt64>) -> UInt64 = { UInt64.random(in: $0) }
  ) {
    self.configuration = configuration
    self.nowMilliseconds = nowMilliseconds
    self.jitter = jitter
    resolver = CredentialsResolver(tenant: configuration.tenant, variable: variable)
    loader = CredentialsLoader(
      securityTokens: SecurityTokenService(
        http: http,
        region: configuration.region,
        endpoint: configuration.securityTokenEndpoint,
        tenant: configuration.tenant
      ),
      metadata: metadata
    )
  }

  // MARK: Using them

  /// Credentials that are good at this moment.
  ///
  /// - Throws: `CMKError.unreachable`, its text beginning with `credentials: `.
  public func credentials() async throws(CMKError) -> AWSCredentials {
    if case .wait(let refresh) = try action(mayWait: true) { await refresh.value }
    guard case .use(let credentials) = try action(mayWait: false) else { throw Self.failure(nil) }
    return credentials
  }

  private func action(mayWait: Bool) throws(CMKError) -> Action {
    let now = nowMilliseconds()
    let action = state.withLock { state -> Action in
      guard let held = state.held, held.schedule.map({ now < $0.expiresMilliseconds }) ?? true else {
        if mayWait, let refresh = refresh(&state, now) { return .wait(refresh) }
        return .fail(Self.failure(state.lastFailure))
      }
      let isDue = held.schedule.map { now >= $0.refreshMilliseconds } ?? false
      let isUrgent = state.isInvalidated || held.schedule.map { now >= $0.waitMilliseconds } ?? false
      guard mayWait, isDue || isUrgent, let refresh = refresh(&state, now), isUrgent else {
        return .use(held.credentials)
      }
      return .wait(refresh)
    }
    if case .fail(let error) = action { throw error }
    return action
  }

  /// The refresh that is under way, or a new one; nil in the pause after one that failed.
  private func refresh(_ state: inout State, _ now: UInt64) -> Task<Void, Never>? {
    if let refresh = state.refresh { return refresh }
    guard state.pause.isOver(now) else { return nil }
    let source = state.source
    let refresh = Task { await self.refresh(source) }
    state.refresh = refresh
    return refresh
  }

  private func refresh(_ source: (source: ResolvedSource, name: String)?) async {
    let result: Result<Loaded, CMKError>
    do throws(CMKError) {
      result = .success(try await load(source))
    } catch {
      result = .failure(error)
    }
    let now = nowMilliseconds()
    state.withLock { state in
      state.refresh = nil
      switch result {
      case .success(let loaded): hold(loaded, &state)
      case .failure(let error):
        state.lastFailure = error.description
        state.pause.fail(now, jitter: jitter)
      }
    }
  }

  private func load(
    _ known: (source: ResolvedSource, name: String)?
  ) async throws(CMKError) -> Loaded {
    let (source, name) = if let known { known } else { try resolver.resolve(configuration) }
    let credentials = try await loader.load(source)
    let now = nowMilliseconds()
    if let expires = credentials.expiresMilliseconds, expires <= now {
      throw .unreachable("\(name) gives credentials that have expired; is the clock right?")
    }
    return Loaded(source: source, sourceName: name, credentials: credentials, milliseconds: now)
  }

  private func hold(_ loaded: Loaded, _ state: inout State) {
    state.source = (loaded.source, loaded.sourceName)
    state.held = Held(
      credentials: loaded.credentials,
      loadedMilliseconds: loaded.milliseconds,
      schedule: loaded.credentials.expiresMilliseconds.map {
        RefreshSchedule(loadedMilliseconds: loaded.milliseconds, expiresMilliseconds: $0, jitter: jitter)
      }
    )
    state.pause = RetryPause()
    state.lastFailure = nil
    state.isInvalidated = false
  }

  private static func failure(_ why: String?) -> CMKError {
    .unreachable("credentials: \(why ?? "none yet")")
  }

  /// AWS does not know the held credentials, or says that they have expired: the next call waits for others. Temporary ones alone, and once in
  /// 30 seconds, since AWS may say it of any that come.
  public func invalidate() {
    let now = nowMilliseconds()
    state.withLock { state in
      guard state.held?.schedule != nil else { return }
      if let last = state.invalidatedMilliseconds, now >= last, now - last < Self.invalidationMilliseconds {
        return
      }
      state.invalidatedMilliseconds = now
      state.isInvalidated = true
      state.pause = RetryPause()
    }
  }

  // MARK: Showing them

  /// What is known of them at this moment.
  public var status: AWSCredentialsStatus {
    state.withLock { state in
      AWSCredentialsStatus(
        sourceName: state.source?.name,
        accessKeyIDEnd: state.held.map { String($0.credentials.accessKeyID.suffix(4)) },
        loadedMilliseconds: state.held?.loadedMilliseconds,
        expiresMilliseconds: state.held?.credentials.expiresMilliseconds,
        lastFailure: state.lastFailure
      )
    }
  }

  /// The refresh that is under way: what a test waits for.
  var refreshUnderWay: Task<Void, Never>? { state.withLock { $0.refresh } }
}
