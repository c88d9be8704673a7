internal import ConfigurationFiles
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

/// What the server shows to clients and whom of them it takes, from files that may change while it runs. Each part is read by itself, and one
/// that cannot be used leaves the last good one in force: a certificate whose key has not come yet, a list that is written at this moment.
final class ServerTLS: Sendable {
  /// What is read and kept by itself. In this order: lists are signed by the CAs.
  enum Part: Int, CaseIterable, Sendable {
    case certificate, clientAuthorities, revocationLists

    var name: String {
      switch self {
      case .certificate: "certificate"
      case .clientAuthorities: "client_ca"
      case .revocationLists: "client_crl"
      }
    }
  }

  private struct Source {
    var signatures: [FileSignature?]
    var loadedMilliseconds = unixMilliseconds()
    /// Of the last try; empty where it succeeded.
    var failure = ""
  }

  private struct State {
    var key: CertifiedKey
    var authorities: TrustedAuthorities
    var lists: RevocationLists?
    var context: TLSContext
    var sources: [Part: Source]
    /// It was said that the lists are past their time.
    var isExpirySaid = false
  }

  private let configuration: ServiceConfiguration
  private let logger: Logger
  private let state: Mutex<State>
  private let turns = Turns()

  /// Reads everything.
  ///
  /// - Throws: what cannot be used.
  init(_ configuration: ServiceConfiguration, _ logger: Logger) throws(ConfigurationError) {
    self.configuration = configuration
    self.logger = logger
    guard PeerIdentity.isTrustDomain(configuration.trustDomain) else {
      throw ConfigurationError(
        "trust_domain is 1 to 255 of a-z, 0-9, '.', '-' and '_', not '\(configuration.trustDomain)'"
      )
    }
    var sources: [Part: Source] = [:]
    for part in Part.allCases where !Self.paths(part, configuration).isEmpty {
      sources[part] = Source(signatures: Self.signatures(part, configuration))
    }
    do {
      let key = try Self.loadKey(configuration)
      let authorities = try TrustedAuthorities(file: configuration.clientAuthorityFile)
      let lists = try configuration.clientRevocationFile.map { file throws(TLSError) in
        try RevocationLists(file: file, authorities: authorities)
      }
      let context = try TLSContext(key, authorities, revoked: lists, role: Self.role(configuration))
      state = Mutex(
        State(key: key, authorities: authorities, lists: lists, context: context, sources: sources)
      )
    } catch {
      throw ConfigurationError("tls: \(error)")
    }
  }

  /// For connections that begin now.
  var context: TLSContext { state.withLock { $0.context } }

  /// What is in force, for an operator.
  var files: [LoadedFiles] {
    state.withLock { state in
      Part.allCases.compactMap { part in
        guard let source = state.sources[part] else { return nil }
        var files = LoadedFiles(name: part.name)
        files.loadedMilliseconds = source.loadedMilliseconds
        files.failure = source.failure
        switch part {
        case .certificate: files.ends = UInt64(clamping: state.key.notAfter)
        case .clientAuthorities: break
        case .revocationLists: files.ends = UInt64(clamping: state.lists?.nextUpdate ?? 0)
        }
        return files
      }
    }
  }

  private static func role(_ configuration: ServiceConfiguration) -> TLSContext.Role {
    .server(trustDomain: configuration.trustDomain)
  }

  private static func loadKey(_ configuration: ServiceConfiguration) throws(TLSError) -> CertifiedKey {
    try CertifiedKey(
      certificateFile: configuration.certificateFile,
      privateKeyFile: configuration.privateKeyFile
    )
  }

  private static func paths(_ part: Part, _ configuration: ServiceConfiguration) -> [String] {
    switch part {
    case .certificate: [configuration.certificateFile, configuration.privateKeyFile]
    case .clientAuthorities: [configuration.clientAuthorityFile]
    case .revocationLists: configuration.clientRevocationFile.map { [$0] } ?? []
    }
  }

  private static func signatures(_ part: Part, _ configuration: ServiceConfiguration) -> [FileSignature?] {
    paths(part, configuration).map { FileSignature(path: $0) }
  }

  /// When files are read anew.
  enum Occasion: Sendable {
    /// They are looked at: only where they changed, or could not be used before.
    case change
    /// An operator asked: in any case.
    case request
  }

  /// Reads the files anew, on a thread of `pools`.
  ///
  /// - Returns: the parts that others came into force of.
  func reload(_ occasion: Occasion, _ pools: FlushPools, device: UInt64) async -> Set<Part> {
    await turns.run {
      await pools.value(device: device) { self.reload(occasion) }
    }
  }

  private func reload(_ occasion: Occasion) -> Set<Part> {
    let before = state.withLock { $0 }
    var next = before
    var taken: Set<Part> = []
    for part in Part.allCases {
      guard let source = before.sources[part] else { continue }
      // Looked at before they are read: what changes in between is read again.
      let signatures = Self.signatures(part, configuration)
      guard occasion == .request || signatures != source.signatures || !source.failure.isEmpty else {
        continue
      }
      next.sources[part]?.signatures = signatures
      do throws(TLSError) {
        try load(part, into: &next)
        next.sources[part]?.failure = ""
        next.sources[part]?.loadedMilliseconds = unixMilliseconds()
        taken.insert(part)
      } catch {
        next.sources[part]?.failure = "\(error)"
        if source.failure != "\(error)" {
          logger.error("\(part.name) was not taken over, the last good one stays in force: \(error)")
        }
      }
    }
    do throws(TLSError) {
      if !taken.isEmpty {
        next.context = try TLSContext(
          next.key,
          next.authorities,
          revoked: next.lists,
          role: Self.role(configuration)
        )
        logger.notice("read anew: \(taken.map(\.name).sorted().joined(separator: ", "))")
      }
      sayExpiry(&next)
      let settled = next
      state.withLock { $0 = settled }
      return taken
    } catch {
      logger.error("nothing was taken over: \(error)")
      return []
    }
  }

  private func load(_ part: Part, into state: inout State) throws(TLSError) {
    switch part {
    case .certificate: state.key = try Self.loadKey(configuration)
    case .clientAuthorities:
      state.authorities = try TrustedAuthorities(file: configuration.clientAuthorityFile)
    case .revocationLists:
      guard let file = configuration.clientRevocationFile else { return }
      state.lists = try RevocationLists(file: file, authorities: state.authorities)
    }
  }

  private func sayExpiry(_ state: inout State) {
    let end = UInt64(clamping: state.lists?.nextUpdate ?? 0)
    let isOver = end != 0 && end * 1000 < unixMilliseconds()
    if isOver, !state.isExpirySaid {
      logger.error(
        "a revocation list is past its nextUpdate: clients of its CA are refused until a newer one is there"
      )
    }
    state.isExpirySaid = isOver
  }
}
