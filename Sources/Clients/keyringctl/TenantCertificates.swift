import ArgumentParser
import Cryptography
import KeyringCore
import KeyringStorage
import SecureMemory
import TLSTransport

/// Whether certificates are made with tenants, and where they go.
struct CertificateOptions: ParsableArguments {
  @Option(
    name: .customLong("pki"),
    help:
      "The directory of `pki init`: certificates are made for the tenant's administrator and each instance named. Those that are good are kept."
  )
  var pkiDirectory: String?

  @Option(name: .long, help: "Where the certificates go, if not beside the CA.")
  var certificates: String?

  @Option(name: .customLong("certificate-days"), help: "Days of validity of new certificates.")
  var days: Int = 365

  func validate() throws {
    guard certificates == nil || pkiDirectory != nil else {
      throw ValidationError("--certificates is there without --pki")
    }
  }

  /// Nil where none are asked for.
  ///
  /// - Throws: where the CA cannot be used: before anything was made.
  func open() throws -> TenantCertificates? {
    guard let pkiDirectory else { return nil }
    let pki = try PKIDirectory(pkiDirectory, create: false)
    return TenantCertificates(
      target: try certificates.map { try PKIDirectory($0, create: true) } ?? pki,
      authority: try pki.authority(),
      trustDomain: try pki.trustDomain(),
      days: days
    )
  }
}

/// The certificates of tenants, from a CA of `pki init`: made where they are not, so that the same again changes nothing.
struct TenantCertificates {
  let target: PKIDirectory
  let authority: CertificateAuthority
  let trustDomain: String
  let days: Int

  /// Makes what is missing for a tenant's administrator and its instances.
  ///
  /// - Returns: the names that were made, and of all.
  func ensure(_ tenant: String, _ instances: [String]) throws -> (made: [String], all: [String]) {
    var identities: [(String, PeerIdentity)] = []
    do {
      let name = try TenantName(tenant)
      identities.append(("\(name)-admin", .tenantAdmin(name)))
      for instance in instances {
        identities.append(("\(name)-\(instance)", .instance(name, try InstanceName(instance))))
      }
    } catch {
      throw Failure("\(error)")
    }
    let made = try identities.filter { try ensure($0.0, $0.1.uri(trustDomain: trustDomain)) }
    return (made.map(\.0), identities.map(\.0))
  }

  /// - Returns: false where a good one is there.
  private func ensure(_ name: String, _ uri: String) throws -> Bool {
    let place = "\(target.directory.path)/\(name)"
    do {
      switch try standing(name, uri) {
      case .good: return false
      case .foreign:
        throw Failure(
          "\(place).crt is of another CA or another identity: move it away, or use another --certificates"
        )
      case .over, nil:
        let issued = try authority.issue(.client(uri: uri), days: days)
        // SECRET: PEM of a private key, from locked memory to its file.
        let key = unsafe issued.privateKeyPEM.withUnsafeBytes { unsafe Array($0) }
        try AtomicFile.replace("\(name).key", in: target.directory, with: [key])
        try AtomicFile.replace("\(name).crt", in: target.directory, with: [Array(issued.certificatePEM.utf8)])
        return true
      }
    } catch let failure as Failure {
      throw failure
    } catch {
      throw Failure("\(place): \(error)")
    }
  }

  /// Nil where there is no pair: half of one is what a command that was cut off leaves.
  private func standing(_ name: String, _ uri: String) throws -> CertificateAuthority.Standing? {
    let directory = target.directory
    guard try directory.status(of: "\(name).crt") != nil else { return nil }
    let certificate = try target.read("\(name).crt")
    let key = try directory.status(of: "\(name).key").map { _ in
      try directory.readSecret("\(name).key", bytesMax: SecretFile.bytesMax)
    }
    return authority.standing(
      certificatePEM: certificate,
      privateKeyPEM: try key ?? Secret(joining: []),
      uri: uri
    )
  }
}
