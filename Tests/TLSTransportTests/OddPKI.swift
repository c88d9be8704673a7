import COpenSSL
import KeyringTestSupport
import TLSTransport

/// A CA, and a server and a client in good order under it.
struct OddPKI {
  let directory: TestDirectory
  let authority: OddCertificate
  let server: TLSContext
  static let trustDomain = "test.example"

  init() throws {
    directory = try TestDirectory()
    authority = try OddCertificate(.authority)
    try authority.write("ca", directory)
    server = try OddPKI.makeServer(directory, authority, Self.serverShape())
    try OddCertificate(.client("URI:spiffe://test.example/admin"), issuer: authority).write(
      "client",
      directory
    )
  }

  static func serverShape(_ names: String = "DNS:localhost,IP:127.0.0.1") -> OddCertificate.Shape {
    OddCertificate.Shape(
      commonName: "localhost",
      extensions: [
        (NID_basic_constraints, "critical,CA:FALSE"), (NID_ext_key_usage, "serverAuth"),
        (NID_subject_alt_name, names),
      ]
    )
  }

  private static func makeServer(
    _ directory: TestDirectory,
    _ authority: OddCertificate,
    _ shape: OddCertificate.Shape
  ) throws -> TLSContext {
    try OddCertificate(shape, issuer: authority).write("server", directory)
    return try TLSContext(files("server", directory), role: .server(trustDomain: trustDomain))
  }

  static func files(_ name: String, _ directory: TestDirectory) -> TLSConfiguration {
    TLSConfiguration(
      certificateFile: directory("\(name).crt"),
      privateKeyFile: directory("\(name).key"),
      authorityFile: directory("ca.crt")
    )
  }

  /// Our client, with the good certificate.
  func client() throws -> TLSContext { try TLSContext(Self.files("client", directory), role: .client) }

  func issue(_ shape: OddCertificate.Shape) throws -> OddCertificate {
    try OddCertificate(shape, issuer: authority)
  }

  /// A good client's certificate.
  func good() throws -> OddCertificate {
    try issue(.client("URI:spiffe://test.example/tenant/acme/instance/db1"))
  }
}
