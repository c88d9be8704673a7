import ArgumentParser
import Cryptography
import KeyringStorage

struct PKIRevoke: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke",
    abstract: "Puts certificates onto the CA's revocation list: ca.crl.",
    discussion: """
      CERT is the file of a certificate that this CA issued. Copy ca.crl to where `tls.client_crl` of keyringd's
      configuration says: it is taken within seconds, and open connections of these certificates are closed. Without CERT
      the list is written anew, with the same certificates, and a new nextUpdate: after that time keyringd lets nobody in
      until it has a newer list.
      """
  )

  @Option(name: .long, help: "The PKI's directory, of `pki init`.")
  var directory: String

  @Option(name: .long, help: "Days until the list's nextUpdate.")
  var days: Int = 3650

  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  @Argument(help: "Certificates, PEM.")
  var certificates: [String] = []

  func run() throws {
    let pki = try PKIDirectory(directory, create: false)
    let revoked = try certificates.map { try Input.text($0) }
    do {
      let authority = try pki.authority()
      let present = try pki.directory.status(of: "ca.crl").map { _ in try pki.read("ca.crl") }
      let list = try authority.revoke(revoked, present: present, days: days)
      try AtomicFile.replace("ca.crl", in: pki.directory, with: [Array(list.utf8)])
    } catch let error as Failure {
      throw error
    } catch {
      throw Failure("\(error)")
    }
    Output.show(
      output,
      .object([
        ("revocation_list", .text("\(directory)/ca.crl")), ("added", .number(UInt64(revoked.count))),
      ]),
      text: "\(directory)/ca.crl: \(revoked.count) certificates added; copy it to keyringd's tls.client_crl"
    )
  }
}
