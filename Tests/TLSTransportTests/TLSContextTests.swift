import COpenSSL
import Foundation
import KeyringTestSupport
import TLSTransport
import Testing

/// What is wrong with the files is said before anything listens.
@Suite struct TLSContextTests {
  private func expectRefusal(
    _ files: TLSConfiguration,
    _ words: String,
    _ location: SourceLocation = #_sourceLocation
  ) {
    do throws(TLSError) {
      _ = try TLSContext(files, role: .server(trustDomain: "test.example"))
      Issue.record("it was accepted", sourceLocation: location)
    } catch {
      guard case .configuration(let text) = error else {
        Issue.record("\(error)", sourceLocation: location)
        return
      }
      #expect(text.contains(words), sourceLocation: location)
    }
  }

  @Test func filesThatDoNotServeAreNamed() throws {
    let pki = try OddPKI()
    let directory = pki.directory
    expectRefusal(OddPKI.files("nothing", directory), "nothing.crt")
    try directory.write("rubbish.crt", "rubbish\n")
    try directory.write("rubbish.key", "rubbish\n")
    expectRefusal(OddPKI.files("rubbish", directory), "rubbish.crt holds no PEM certificate")
    try pki.issue(OddPKI.serverShape()).write("other", directory)
    let mixed = TLSConfiguration(
      certificateFile: directory("server.crt"),
      privateKeyFile: directory("other.key"),
      authorityFile: directory("ca.crt")
    )
    expectRefusal(mixed, "other.key is not the private key of")
    let noAuthority = TLSConfiguration(
      certificateFile: directory("server.crt"),
      privateKeyFile: directory("server.key"),
      authorityFile: directory("rubbish.crt")
    )
    expectRefusal(noAuthority, "rubbish.crt")
  }

  @Test func datesAreChecked() throws {
    let pki = try OddPKI()
    var shape = OddPKI.serverShape()
    (shape.notBefore, shape.notAfter) = (-7200, -3600)
    try pki.issue(shape).write("expired", pki.directory)
    expectRefusal(OddPKI.files("expired", pki.directory), "has expired")
    (shape.notBefore, shape.notAfter) = (3600, 7200)
    try pki.issue(shape).write("future", pki.directory)
    expectRefusal(OddPKI.files("future", pki.directory), "not valid yet")
  }

  @Test func aPrivateKeyThatOthersCanReadIsRefused() throws {
    let pki = try OddPKI()
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o644],
      ofItemAtPath: pki.directory("server.key")
    )
    expectRefusal(OddPKI.files("server", pki.directory), "server.key")
  }
}
