import Cryptography
import Foundation
import KeyringTestSupport
import Testing

/// Certificates as the openssl command sees them.
@Suite struct CertificateAuthorityTests {
  let folder: TestDirectory

  init() throws {
    folder = try TestDirectory()
    let made = try CertificateAuthority.create(name: "test CA", days: 3)
    let other = try CertificateAuthority.create(name: "test CA", days: 3)
    try folder.write("ca.crt", made.certificatePEM)
    try folder.write("ca.key", String(decoding: revealed(made.privateKeyPEM), as: UTF8.self))
    try folder.write("other.crt", other.certificatePEM)
    let authority = try CertificateAuthority.load(
      certificatePEM: made.certificatePEM,
      privateKeyPEM: made.privateKeyPEM
    )
    for (name, purpose) in [
      ("client", CertificatePurpose.client(uri: "spiffe://test.example/tenant/acme/instance/a")),
      ("server", .server(hosts: ["localhost", "127.0.0.1", "::1"])),
    ] {
      let issued = try authority.issue(purpose, days: 2)
      try folder.write("\(name).crt", issued.certificatePEM)
      try folder.write("\(name).key", String(decoding: revealed(issued.privateKeyPEM), as: UTF8.self))
    }
  }

  private func openssl(_ arguments: String...) throws -> (status: Int32, text: String) {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["openssl"] + arguments
    process.currentDirectoryURL = URL(filePath: folder.path)
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let data = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
  }

  @Test func chainsVerifyForTheirPurposeAlone() throws {
    let verify = ["verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose"]
    for (name, purpose, isGood) in [
      ("client", "sslclient", true), ("server", "sslserver", true), ("client", "sslserver", false),
      ("server", "sslclient", false),
    ] {
      let (status, text) = try openssl(
        verify[0],
        verify[1],
        verify[2],
        verify[3],
        verify[4],
        purpose,
        "\(name).crt"
      )
      #expect((status == 0) == isGood, "\(name) for \(purpose): \(text)")
    }
    #expect(try openssl("verify", "-CAfile", "other.crt", "client.crt").status != 0)
    let host = try openssl("verify", "-CAfile", "ca.crt", "-verify_hostname", "localhost", "server.crt")
    #expect(host.status == 0)
    #expect(
      try openssl("verify", "-CAfile", "ca.crt", "-verify_hostname", "example.org", "server.crt").status != 0
    )
  }

  @Test func extensionsSayWhatTheyMust() throws {
    let client = try openssl("x509", "-in", "client.crt", "-noout", "-text").text
    for part in [
      "Version: 3", "CA:FALSE", "Digital Signature", "TLS Web Client Authentication",
      "URI:spiffe://test.example/tenant/acme/instance/a", "ecdsa-with-SHA256", "prime256v1",
      "X509v3 Authority Key Identifier",
    ] {
      #expect(client.contains(part), "\(part)")
    }
    #expect(!client.contains("DNS:") && !client.contains("TLS Web Server"))
    let server = try openssl("x509", "-in", "server.crt", "-noout", "-text").text
    for part in ["DNS:localhost", "IP Address:127.0.0.1", "TLS Web Server Authentication"] {
      #expect(server.contains(part), "\(part)")
    }
    let ca = try openssl("x509", "-in", "ca.crt", "-noout", "-text").text
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "critical"] {
      #expect(ca.contains(part), "\(part)")
    }
  }

  @Test func keysAreOfTheirCertificates() throws {
    for name in ["ca", "client", "server"] {
      let ofKey = try openssl("pkey", "-in", "\(name).key", "-pubout")
      let ofCertificate = try openssl("x509", "-in", "\(name).crt", "-noout", "-pubkey")
      #expect(ofKey.status == 0 && ofKey.text == ofCertificate.text, "\(name)")
    }
    let serials = try ["ca", "client", "server"].map {
      try openssl("x509", "-in", "\($0).crt", "-noout", "-serial").text
    }
    #expect(Set(serials).count == 3)
  }

  @Test func validityIsWhatWasAskedFor() throws {
    #expect(try openssl("x509", "-in", "client.crt", "-noout", "-checkend", "\(2 * 86_400 - 60)").status == 0)
    #expect(try openssl("x509", "-in", "client.crt", "-noout", "-checkend", "\(2 * 86_400 + 60)").status == 1)
    for days in [0, -1, 36_501] {
      #expect(throws: CryptographyError.self) { try CertificateAuthority.create(name: "a", days: days) }
    }
  }

  @Test func whatIsNoAuthorityIsRefused() throws {
    func text(_ name: String) throws -> String { try String(contentsOfFile: folder(name), encoding: .utf8) }
    for (certificate, key) in [
      (try text("other.crt"), try text("ca.key")), ("", try text("ca.key")), (try text("ca.crt"), ""),
      (try text("ca.key"), try text("ca.crt")), ("-----BEGIN CERTIFICATE-----\n", try text("ca.key")),
    ] {
      #expect(throws: CryptographyError.self) {
        try CertificateAuthority.load(
          certificatePEM: certificate,
          privateKeyPEM: try secret(Array(key.utf8))
        )
      }
    }
  }
}
