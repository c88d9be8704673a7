public import Cryptography
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

  /// Issues a client's certificate, and says where it is.
  public func client(_ identity: PeerIdentity) throws -> TLSConfiguration {
    let uri = identity.uri(trustDomain: trustDomain)
    let name = uri.split(separator: "/").dropFirst(2).joined(separator: "-")
    try issue(name, .client(uri: uri))
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
