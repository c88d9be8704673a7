import ArgumentParser
import KeyringClient
import KeyringCore
import KeyringStorage
import WireProtocol

/// Calls in flight at a time: a link is kept busy, a server not flooded.
private let pipelined = 8

/// Making, proving and restoring take as long as the keyring is large.
private let longest = Duration.seconds(600)

struct BackupCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup",
    abstract: "Writes a backup of a tenant into a file, proved to open.",
    discussion: """
      Taken while the tenant is in use; it has every change that was acknowledged before the command began. Before it is
      reported, the server has read it back, checked its HMACs and opened every record. For an administrator of the
      service or of the tenant.

      In it: the storage file (keys, encrypted), tenant.yaml, persisted.json, and of provider `local` the CMKs, encrypted
      under the service's backup passphrase (`backup: {passphrase_file: …}` in keyringd.yaml; keep that where the server
      is not). NOT in it: KMS credentials, certificates, the root key, that passphrase. A tenant whose CMKs are in a KMS
      can be restored only where that KMS still has them.

      `keyringctl verify FILE` checks a backup anywhere, `inspect FILE` shows what is in it, `restore` puts it back.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Argument(help: "The file to write; mode 0600. It appears once it is whole.")
  var file: String
  @Flag(name: .long, help: "Replace a file that is there.")
  var force = false
  @Flag(
    name: .long,
    help:
      "Take a backup though a wrapping key cannot be had (a locked CMK, say): what is under it is not proved."
  )
  var unproved = false

  func run() async throws {
    let target = try NewFile(file, replaces: force)
    let client = try connection.makeClient()
    let summary: BackupSummary
    let digest: Digest
    let bytes: UInt64
    do {
      let begin = Call.admin(.backup(tenant, .begin(allowUnproved: unproved)))
      guard
        case .backup(.begun(let id, let size, let sha256, let begun)) = try await client.call(
          begin,
          timeout: longest
        ).result
      else { throw unexpected() }
      (summary, digest, bytes) = (begun, sha256, size)
      guard let count = Int(exactly: size) else {
        throw Failure("no backup has \(size) bytes: the server is at fault")
      }
      try await read(Begun(id, tenant), count, client, target)
      _ = try await client.call(.admin(.backup(tenant, .end(id))))
      await client.close()
    } catch {
      await client.close()
      throw error
    }
    guard try Backup(target).digest == digest else {
      throw Failure("what was received is not what the server made: nothing was kept; try again")
    }
    try target.finish()
    show(summary, bytes, digest)
  }

  /// A backup under way. (A class, for the reason that `RestoreCommand.Begun` is one.)
  private final class Begun: Sendable {
    private let id: TransferID
    private let tenant: String

    init(_ id: TransferID, _ tenant: String) {
      self.id = id
      self.tenant = tenant
    }

    func read(at offset: Int) -> Call { .admin(.backup(tenant, .read(id, offset: UInt64(offset)))) }
  }

  /// Several pieces at a time, written in their order. What is under way when one fails ends with the connection.
  private func read(_ begun: Begun, _ size: Int, _ client: KeyringClient, _ target: NewFile) async throws {
    var underWay: [(offset: Int, piece: Task<[UInt8], any Error>)] = []
    var next = 0
    while next < size || !underWay.isEmpty {
      while next < size, underWay.count < pipelined {
        let (call, count) = (begun.read(at: next), min(TransferID.chunkBytes, size - next))
        underWay.append((next, Task { try await Self.piece(call, count, client) }))
        next += count
      }
      let (offset, piece) = underWay.removeFirst()
      try target.write(try await piece.value, at: offset)
    }
  }

  private static func piece(_ call: Call, _ count: Int, _ client: KeyringClient) async throws -> [UInt8] {
    guard case .backup(.data(let bytes)) = try await client.call(call, timeout: longest).result,
      bytes.count == count
    else { throw unexpected() }
    return bytes
  }

  private func show(_ summary: BackupSummary, _ bytes: UInt64, _ digest: Digest) {
    var rows = [["file", file], ["bytes", "\(bytes)"], ["sha256", "\(digest)"]] + summary.rows
    if !summary.unprovedWrappingKeys.isEmpty { rows.append(["NOT PROVED", "to open as a whole"]) }
    Output.show(
      connection.output,
      .object(
        [
          ("tenant", .text(tenant)), ("file", .text(file)), ("bytes", .number(bytes)),
          ("sha256", .text("\(digest)")), ("proved", .flag(summary.unprovedWrappingKeys.isEmpty)),
        ] + summary.members
      ),
      text: Output.table(rows)
    )
  }
}

extension BackupSummary {
  /// For people.
  var rows: [[String]] {
    [
      ["keyring", keyringID], ["sequence", "\(sequence)"], ["digest", digest],
      ["keys", "\(keys) (\(records) records)"],
    ] + cmksIncluded.map { ["CMK in it", $0] } + cmksNeeded.map { ["CMK needed", $0] }
      + unprovedWrappingKeys.map { ["not proved", "what is under the wrapping key \($0)"] }
  }

  /// For programs.
  var members: [(String, JSON)] {
    [
      ("keyring_id", .text(keyringID)), ("sequence", .number(sequence)), ("digest", .text(digest)),
      ("keys", .number(keys)), ("records", .number(records)),
      ("cmks_included", .list(cmksIncluded.map { .text($0) })),
      ("cmks_needed", .list(cmksNeeded.map { .text($0) })),
      ("unproved_wrapping_keys", .list(unprovedWrappingKeys.map { .text($0) })),
    ]
  }
}

struct RestoreCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Puts a backup in its place: a new tenant, an emptied one, or one that is there.",
    discussion: """
      For a service administrator. A backup is restored as the tenant that it was taken of: every key in it is bound to
      that name. Everything is proved first (the file, its HMACs, that every record opens, that the CMKs can be used);
      only then CMKs, storage file, anchor and configuration are put in their places, and the tenant is opened once. Where
      that is interrupted, run the same again.

      CMKs of provider `local` come with the backup; keyringd needs the backup passphrase that it was taken under
      (`backup: {passphrase_file: …}`), and any root key. Credentials of a KMS are not in a backup: put them back first.

      It refuses to give up anything: a keyring that is newer than the backup, another keyring, or a file that cannot be
      read, unless told --accept-rollback. Databases may hold data under keys that are given up.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name, the one that the backup was taken of.")
  var tenant: String
  @Argument(help: "The backup.")
  var file: String
  @Flag(
    name: .long,
    help: "Give up what is there and newer than the backup, another keyring, or unreadable. Audited."
  )
  var acceptRollback = false
  @Flag(
    name: .long,
    help: "Restore also what cannot be proved to open here: a locked CMK, an unproved backup. Audited."
  )
  var acceptUnproved = false
  @Flag(name: .long, help: "Prove everything, say what would be done, and change nothing.")
  var dryRun = false

  func run() async throws {
    let source = try LocalFile(file)
    let backup: Backup
    do {
      backup = try Backup(source)
    } catch {
      throw Failure("\(file) is not a backup that can be used: \(error)")
    }
    guard backup.manifest.tenant.text == tenant else {
      throw Failure(
        "\(file) is a backup of the tenant '\(backup.manifest.tenant)', and is restored as that one only: its keys are bound to the name"
      )
    }
    let announce = announcement(source, backup.digest)
    let client = try connection.makeClient()
    do {
      let report = try await restore(source, announce, client)
      await client.close()
      show(report)
    } catch {
      await client.close()
      throw error
    }
  }

  private func announcement(_ source: LocalFile, _ digest: Digest) -> Call {
    let begin = RestoreBeginCall(
      bytes: UInt64(source.size),
      digest: digest,
      acceptRollback: acceptRollback,
      acceptUnproved: acceptUnproved,
      isDryRun: dryRun
    )
    return .admin(.restore(tenant, .begin(begin)))
  }

  private func restore(
    _ source: LocalFile,
    _ announce: Call,
    _ client: KeyringClient
  ) async throws -> RestoreReport {
    guard case .restore(.begun(let id)) = try await client.call(announce, timeout: longest).result else {
      throw unexpected()
    }
    let begun = Begun(id, tenant)
    try await send(begun, source, client)
    guard case .restore(.ended(let report)) = try await client.call(begun.end, timeout: longest).result else {
      throw unexpected()
    }
    return report
  }

  /// A restore under way. (A class, because Swift 6.3.1 passes values of 128 bits wrongly to some async functions: their stacks differ.)
  private final class Begun: Sendable {
    private let id: TransferID
    private let tenant: String

    init(_ id: TransferID, _ tenant: String) {
      self.id = id
      self.tenant = tenant
    }

    func write(_ bytes: [UInt8], at offset: Int) -> Call {
      .admin(.restore(tenant, .write(id, offset: UInt64(offset), data: bytes)))
    }

    var end: Call { .admin(.restore(tenant, .end(id))) }
  }

  /// Several pieces at a time. What is under way when one fails ends with the connection.
  private func send(_ begun: Begun, _ source: LocalFile, _ client: KeyringClient) async throws {
    var underWay: [Task<Void, any Error>] = []
    var next = 0
    while next < source.size || !underWay.isEmpty {
      while next < source.size, underWay.count < pipelined {
        let bytes = try source.read(at: next, count: min(TransferID.chunkBytes, source.size - next))
        let call = begun.write(bytes, at: next)
        underWay.append(Task { try await Self.piece(call, client) })
        next += bytes.count
      }
      let first = underWay.removeFirst()
      try await first.value
    }
  }

  private static func piece(_ call: Call, _ client: KeyringClient) async throws {
    guard case .restore(.written) = try await client.call(call, timeout: longest).result else {
      throw unexpected()
    }
  }

  private func show(_ report: RestoreReport) {
    let done = report.isDryRun ? "would be restored" : "is restored"
    Output.show(
      connection.output,
      .object(
        [
          ("tenant", .text(tenant)), ("dry_run", .flag(report.isDryRun)),
          ("replaced_sequence", .number(report.replacedSequence)),
          ("cmks_made", .list(report.cmksMade.map { .text($0) })),
          ("notices", .list(report.notices.map { .text($0) })),
        ] + report.summary.members
      ),
      text: Output.table(
        [["tenant", "\(tenant) \(done)"]] + report.summary.rows + report.cmksMade.map { ["CMK made", $0] }
          + (report.replacedSequence > 0 ? [["there was", "sequence \(report.replacedSequence)"]] : [])
          + report.notices.map { ["notice", $0] }
      )
    )
  }
}
