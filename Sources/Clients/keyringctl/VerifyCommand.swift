import ArgumentParser
import CMKProviders
import KeyringCore
import KeyringStorage

struct VerifyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Checks a storage file or a backup, without a server.",
    discussion: """
      Without keys: the header, the chain of digests, that every commit is in its one canonical form and follows from
      those before, and of a backup the digest of each part and of the whole. That finds damage, not a change by someone
      who computes the digests anew: for that, give access to the CMKs, and every HMAC is checked and every record opened.

        a storage file   --cmks DIR --root-key-file FILE        (local CMKs; beside a running server too)
        a backup         --backup-passphrase-file FILE          (local CMKs; with the CMKs in the backup alone)

      --anchor FILE also checks that a storage file is the one that the anchor knows, so not an older one.
      Exit status 0 only if the file is whole and, with access, everything was checked. Nothing is changed.
      """
  )
  @Argument(help: "A storage file (tenants/TENANT/keyring) or a backup.")
  var file: String
  @Option(name: .long, help: "The directory of CMKs (local_provider.directory).")
  var cmks: String?
  @Option(name: .long, help: "The root key of that directory: 64 hexadecimal digits, mode 0600.")
  var rootKeyFile: String?
  @Option(
    name: .customLong("passphrase-file"),
    help: ArgumentHelp("Instead: the passphrase that the root key is made of, mode 0600.", valueName: "file")
  )
  var rootPassphraseFile: String?
  @Option(
    name: .customLong("backup-passphrase-file"),
    help: ArgumentHelp("The passphrase that the backup was taken under, mode 0600.", valueName: "file")
  )
  var backupPassphraseFile: String?
  @Option(name: .long, help: "The anchor (anchors/TENANT.anchor) that a storage file has to agree with.")
  var anchor: String?
  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  func validate() throws {
    guard (cmks == nil) == (rootKeyFile == nil && rootPassphraseFile == nil),
      rootKeyFile == nil || rootPassphraseFile == nil
    else { throw ValidationError("--cmks goes with one of --root-key-file and --passphrase-file") }
    guard cmks == nil || backupPassphraseFile == nil else {
      throw ValidationError("--cmks is for storage files, --backup-passphrase-file for backups")
    }
  }

  func run() async throws {
    let examined = try ExaminedFile(file)
    if let torn = examined.content.tornTail {
      throw Failure(
        "\(file) is whole up to sequence \(examined.content.position.sequence), and has a torn tail of \(examined.storageBytes - examined.content.validBytes) bytes: \(torn); a crash leaves that, and keyringd cuts it off when it opens the file"
      )
    }
    let beside = try beside(examined)
    guard let provider = try access(examined) else {
      return show(examined, nil)
    }
    let unwrapped = await UnwrappedKeys.ask(for: examined.content.state) {
      kind throws(CMKError) -> any CMKProvider in
      guard kind == .local else { throw .refused("a CMK of the provider '\(kind.rawValue)' is not at hand") }
      return provider
    }
    defer { unwrapped.wipe() }
    let proof: KeyringProof
    do {
      proof = try KeyringProof(examined.content, also: beside.authentications, under: unwrapped)
    } catch {
      throw Failure("\(file): \(error)")
    }
    if let (id, error) = unwrapped.refused.min(by: { $0.key.value < $1.key.value }) {
      throw Failure(
        "\(file) is whole; \(proof.opened) records open, and \(proof.unopened) were not opened: the wrapping key \(id) cannot be had: \(error)"
      )
    }
    if let missing = beside.missing {
      throw Failure("\(file) is whole, and \(proof.opened) records open, but \(missing)")
    }
    show(examined, proof)
  }

  /// The HMAC beside those of the batches: the anchor's, the manifest's.
  private struct Beside {
    var authentications: [PendingAuthentication] = []
    /// Why there is none where one belongs; nil otherwise.
    var missing: String?
  }

  private func beside(_ examined: ExaminedFile) throws -> Beside {
    if let backup = examined.backup {
      guard anchor == nil else { throw Failure("--anchor is for a storage file; \(file) is a backup") }
      guard let authentication = backup.authentication else {
        return Beside(
          missing:
            "its manifest has no HMAC: either no wrapping key could be had when it was taken (--unproved), or someone without one changed it"
        )
      }
      return Beside(authentications: [authentication])
    }
    guard let anchor else { return Beside() }
    do {
      let bytes = try LocalFile(anchor).bytes()
      switch try OfflineCheck.anchor(bytes, of: examined.content, path: file) {
      case .authentication(let authentication): return Beside(authentications: [authentication])
      case .file: return Beside()
      case .none:
        return Beside(
          missing:
            "\(anchor) has no HMAC, so it proves nothing: an operator accepted the file, or its creation was interrupted, and the next commit brings one; or someone without a wrapping key changed it"
        )
      }
    } catch let error as StoreError {
      throw Failure("\(anchor): \(error)")
    }
  }

  /// The CMKs that were given access to; nil for none.
  private func access(_ examined: ExaminedFile) throws -> LocalCMKSet? {
    do {
      if let backupPassphraseFile {
        guard let backup = examined.backup else {
          throw Failure("--backup-passphrase-file is for a backup; \(file) is a storage file")
        }
        guard let stretching = backup.manifest.stretching else {
          throw Failure("\(file) has no CMKs in it")
        }
        let root = try BackupPassphrase(file: backupPassphraseFile).rootKey(stretching)
        return try LocalCMKSet(backup, root: root)
      }
      guard let cmks else { return nil }
      let directory = try DirectoryDescriptor(path: cmks)
      let source: RootKey.Source =
        rootKeyFile.map { .file($0) } ?? .passphrase(rootPassphraseFile ?? "")
      let root = try RootKey.read(source, directory: directory)
      return try LocalCMKSet(tenant: examined.content.state.tenant, directory: directory, root: root)
    } catch let error as CMKError {
      throw Failure("\(error)")
    } catch let error as FileError {
      throw Failure("\(error)")
    }
  }

  private func show(_ examined: ExaminedFile, _ proof: KeyringProof?) {
    let content = examined.content
    var rows = [
      [examined.kind, "\(file) is whole"], ["tenant", content.state.tenant.text],
      ["keyring", "\(content.state.id)"], ["sequence", "\(content.position.sequence)"],
      ["digest", "\(content.position.digest)"], ["batches", "\(content.positions.count)"],
      ["keys", "\(content.state.keyCount) (\(content.state.recordCount) records)"],
    ]
    if anchor != nil { rows.append(["anchor", "agrees"]) }
    rows.append(["HMACs", proof.map { "\($0.authenticated) checked" } ?? "not checked: no CMKs were given"])
    rows.append(["records", proof.map { "\($0.opened) opened" } ?? "not opened: no CMKs were given"])
    Output.show(
      output,
      .object([
        ("file", .text(file)), ("kind", .text(examined.kind)), ("whole", .flag(true)),
        ("tenant", .text(content.state.tenant.text)), ("keyring_id", .text("\(content.state.id)")),
        ("sequence", .number(content.position.sequence)), ("digest", .text("\(content.position.digest)")),
        ("batches", .number(UInt64(content.positions.count))),
        ("keys", .number(UInt64(content.state.keyCount))),
        ("records", .number(UInt64(content.state.recordCount))),
        ("anchor", anchor == nil ? .null : .text("agrees")),
        ("hmacs_checked", proof.map { .number(UInt64($0.authenticated)) } ?? .null),
        ("records_opened", proof.map { .number(UInt64($0.opened)) } ?? .null),
      ]),
      text: Output.table(rows)
    )
  }
}
