import ArgumentParser
import Cryptography
import Glibc
import KeyringCore
import KeyringStorage
import SecureMemory
import TLSTransport

/// A CA and certificates, for those who have none. keyringd never holds the CA's key.
struct PKI: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pki",
    abstract: "A CA and certificates for those who have none.",
    discussion: """
      Keep the directory where you are, not where keyringd runs: whoever has ca.key can be any tenant's instance.

        keyringctl pki init  --directory pki --trust-domain example.org
        keyringctl pki issue --directory pki server keyring.example.org 10.0.0.5
        keyringctl pki issue --directory pki admin
        keyringctl pki issue --directory pki instance acme db1
        keyringctl pki revoke --directory pki pki/acme-db1.crt
      """,
    subcommands: [PKIInit.self, PKIIssue.self, PKIRevoke.self]
  )
}

/// The PKI's directory.
struct PKIDirectory {
  let directory: DirectoryDescriptor

  init(_ path: String, create: Bool) throws {
    do {
      directory = try DirectoryDescriptor(path: path, create: create)
    } catch {
      throw Failure("\(error)")
    }
  }

  func write(_ name: String, _ bytes: [UInt8]) throws {
    do {
      guard try directory.status(of: name) == nil else {
        throw Failure("\(directory.path)/\(name) is there already; remove it, or use another --directory")
      }
      try AtomicFile.replace(name, in: directory, with: [bytes])
    } catch let error as FileError {
      throw Failure("\(error)")
    }
  }

  /// The private key goes to a file of mode 0600.
  // SECRET: PEM of a private key, from locked memory to its file.
  func write(_ name: String, _ issued: IssuedCertificate) throws {
    try write("\(name).key", unsafe issued.privateKeyPEM.withUnsafeBytes { unsafe Array($0) })
    try write("\(name).crt", Array(issued.certificatePEM.utf8))
  }

  /// As `pki init` was told.
  func trustDomain() throws -> String {
    try read("trust-domain").split(separator: "\n").first.map(String.init) ?? ""
  }

  func authority() throws -> CertificateAuthority {
    do {
      return try CertificateAuthority.load(
        certificatePEM: try read("ca.crt"),
        privateKeyPEM: try SecretFile.read("\(directory.path)/ca.key")
      )
    } catch let failure as Failure {
      throw failure
    } catch {
      throw Failure("\(error)")
    }
  }

  func read(_ name: String) throws -> String {
    do {
      return String(decoding: try directory.readFile(name, bytesMax: 1 << 20), as: UTF8.self)
    } catch {
      throw Failure("\(error)")
    }
  }
}

struct PKIInit: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init",
    abstract: "Makes a CA: ca.crt, and ca.key, mode 0600."
  )

  @Option(name: .long, help: "Where to.")
  var directory: String

  @Option(name: .long, help: "The trust domain: a name of yours, such as keyring.example.org.")
  var trustDomain: String

  @Option(name: .long, help: "Days of validity.")
  var days: Int = 3650

  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  func run() throws {
    guard PeerIdentity.isTrustDomain(trustDomain) else {
      throw Failure("a trust domain is 1 to 255 of a-z, 0-9, '.', '-' and '_', not '\(trustDomain)'")
    }
    let pki = try PKIDirectory(directory, create: true)
    let issued: IssuedCertificate
    do {
      issued = try CertificateAuthority.create(name: "keyring CA \(trustDomain.prefix(40))", days: days)
    } catch {
      throw Failure("\(error)")
    }
    try pki.write("trust-domain", Array((trustDomain + "\n").utf8))
    try pki.write("ca", issued)
    Output.show(
      output,
      .object([
        ("certificate", .text("\(directory)/ca.crt")), ("private_key", .text("\(directory)/ca.key")),
        ("trust_domain", .text(trustDomain)),
      ]),
      text: "\(directory)/ca.crt: the CA of \(trustDomain); \(directory)/ca.key: keep it safe"
    )
  }
}

struct PKIIssue: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "issue",
    abstract: "Issues a certificate with a new private key.",
    discussion: """
      WHAT is one of
        server HOST...            for keyringd: the host names and IP addresses that clients connect to
        admin                     a service administrator
        tenant-admin TENANT       a tenant's administrator
        instance TENANT INSTANCE  a database server of a tenant
      and the files are server, admin, TENANT-admin or TENANT-INSTANCE, each with .crt and .key.

      A client's certificate is valid from this second on, and not before: a name that was revoked takes only what was
      issued later. Where keyringd's clock is behind, it is refused until that has caught up.
      """
  )

  @Option(name: .long, help: "The PKI's directory, of `pki init`.")
  var directory: String

  @Option(name: .long, help: "Days of validity.")
  var days: Int = 365

  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  @Argument(help: "server HOST... | admin | tenant-admin TENANT | instance TENANT INSTANCE")
  var what: [String]

  func run() throws {
    let pki = try PKIDirectory(directory, create: false)
    let (name, purpose) = try certificate(try pki.trustDomain())
    do {
      let authority = try pki.authority()
      try pki.write(name, try authority.issue(purpose, days: days))
    } catch let error as Failure {
      throw error
    } catch {
      throw Failure("\(error)")
    }
    Output.show(
      output,
      .object([
        ("certificate", .text("\(directory)/\(name).crt")),
        ("private_key", .text("\(directory)/\(name).key")),
      ]),
      text: "\(directory)/\(name).crt, \(directory)/\(name).key"
    )
  }

  private func certificate(_ trustDomain: String) throws -> (name: String, CertificatePurpose) {
    func client(_ name: String, _ identity: PeerIdentity) -> (String, CertificatePurpose) {
      (name, .client(uri: identity.uri(trustDomain: trustDomain)))
    }
    do {
      switch (what.first, what.count) {
      case ("server", 2...):
        let hosts = Array(what.dropFirst())
        guard hosts.allSatisfy({ $0.utf8.allSatisfy { isHostByte($0) } && !$0.isEmpty }) else {
          throw Failure("a host is a name or an IP address")
        }
        return ("server", .server(hosts: hosts))
      case ("admin", 1): return client("admin", .serviceAdmin)
      case ("tenant-admin", 2): return client("\(what[1])-admin", .tenantAdmin(try TenantName(what[1])))
      case ("instance", 3):
        return client("\(what[1])-\(what[2])", .instance(try TenantName(what[1]), try InstanceName(what[2])))
      default:
        throw Failure("server HOST..., admin, tenant-admin TENANT or instance TENANT INSTANCE is expected")
      }
    } catch let error as KeyringError {
      throw Failure("\(error)")
    }
  }

  private func isHostByte(_ byte: UInt8) -> Bool {
    Character(UnicodeScalar(byte)).isLetter && byte < 0x80 || (0x30...0x39).contains(byte)
      || [0x2d, 0x2e, 0x3a].contains(byte)
  }
}
