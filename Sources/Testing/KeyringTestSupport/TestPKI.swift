public import Cryptography
internal import Foundation
internal import SecureMemory
public import TLSTransport

/// A CA of a test's own, and certificates from it, as files.
public struct TestPKI: Sendable {
  /// Its folder.
  public let directory: TestDirectory
  /// What it issues for.
  public let trustDomain = "test.example"
  private let authority: IssuedCertificate

  /// Makes the CA, and a server's certificate for localhost.
  public init() throws {
    directory = try TestDirectory()
    authority = try CertificateAuthority.create(name: "test CA", days: 2)
    try directory.write("ca.crt", authority.certificatePEM)
    let key = unsafe authority.privateKeyPEM.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    try directory.write("ca.key", key)
    try issue("server", .server(hosts: ["localhost", "127.0.0.1"]))
  }

  /// Issues a certificate into NAME.crt and NAME.key.
  public func issue(_ name: String, _ purpose: CertificatePurpose) throws {
    let ca = try CertificateAuthority.load(
      certificatePEM: authority.certificatePEM,
      privateKeyPEM: authority.privateKeyPEM
    )
    let issued = try ca.issue(purpose, days: 1)
    try directory.write("\(name).crt", issued.certificatePEM)
    let key = unsafe issued.privateKeyPEM.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    try directory.write("\(name).key", key)
  }

  /// Writes the CA's revocation list, ca.crl: with what was on it, and these certificates.
  public func revoke(_ names: [String]) throws {
    let ca = try CertificateAuthority.load(
      certificatePEM: authority.certificatePEM,
      privateKeyPEM: authority.privateKeyPEM
    )
    let present = try? String(contentsOfFile: directory("ca.crl"), encoding: .utf8)  // none yet
    let certificates = try names.map { try String(contentsOfFile: directory("\($0).crt"), encoding: .utf8) }
    try directory.write("ca.crl", ca.revoke(certificates, present: present, days: 2))
  }

  /// The name of an identity's files.
  public func name(_ identity: PeerIdentity) -> String {
    identity.uri(trustDomain: trustDomain).split(separator: "/").dropFirst(2).joined(separator: "-")
  }

  /// A certificate of any oddity from this CA, into NAME.crt and NAME.key.
  public func issue(_ name: String, odd shape: OddCertificate.Shape) throws {
    try OddCertificate(shape, issuer: OddCertificate(readingFrom: directory, "ca")).write(name, directory)
  }

  /// Issues a client's certificate, and says where it is.
  public func client(_ identity: PeerIdentity) throws -> TLSConfiguration {
    let name = name(identity)
    try issue(name, .client(uri: identity.uri(trustDomain: trustDomain)))
    return configuration(name)
  }

  /// Where a certificate is.
  public func configuration(_ name: String) -> TLSConfiguration {
    TLSConfiguration(
      certificateFile: directory("\(name).crt"),
      privateKeyFile: directory("\(name).key"),
      authorityFile: directory("ca.crt")
    )
  }
}
