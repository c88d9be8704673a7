import ArgumentParser
import AuditLog
import Cryptography
import Glibc
import KeyringStorage

struct AuditCommands: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit",
    abstract: "Checks audit logs.",
    subcommands: [AuditVerifyCommand.self]
  )
}

struct AuditVerifyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Checks that an audit log is as the server wrote it, without a server.",
    discussion: """
      Finds lines that were changed, removed, reordered or added, and files that are missing or were replaced: each line
      carries the SHA-256 of the one before, and a signature over all before comes at least every 1,024 lines.

        keyringctl audit verify audit/acme.1.jsonl audit/acme.2.jsonl --public-key checkpoint.pub --head acme.audit
        keyringctl audit verify audit acme --public-key checkpoint.pub --head anchors/acme.audit

      Name all files of the log, in any order, or its directory and the tenant; the service's own log is '_service'.
      Keep checkpoint.pub away from the server: without --public-key the one beside the files is taken, which whoever
      could change them could change too. --head is the end of the log as the server knew it, from the anchor directory:
      without it, nothing shows that lines are missing at the end.
      Exit status 0 only if the log is whole, as far as that could be checked; what could not is said. Nothing is changed.
      """
  )
  @Argument(help: ArgumentHelp("All files of a log; or its directory, and then its name.", valueName: "file"))
  var files: [String]
  @Option(name: .long, help: "The server's public key (checkpoint.pub of the audit directory).")
  var publicKey: String?
  @Option(name: .long, help: "The head of the log (TENANT.audit of the anchor directory).")
  var head: String?
  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  func run() async throws {
    let paths = try paths()
    let key = try key(beside: paths)
    let head = try readHead()
    let report: AuditVerifier.Report
    do {
      let sources = try paths.map { AuditVerifier.File(name: $0, source: try LocalFile($0)) }
      report = try AuditVerifier.verify(sources, key: key, head: head)
    } catch let error as Failure {
      throw error
    } catch {
      throw Failure("\(error)")
    }
    show(report, key)
    if !report.isWhole {
      let more = UInt64(report.faults.count) + report.faultsOmitted - 1
      throw Failure("the log is not whole: \(report.faults[0])\(more > 0 ? ", and \(more) more" : "")")
    }
  }

  private func paths() throws -> [String] {
    guard files.count == 2, isDirectory(files[0]) else { return files }
    let (directory, log) = (files[0], files[1])
    do {
      let names = try DirectoryDescriptor(path: "\(directory)/.", requirePrivate: false).names()
      let found = names.filter { name in
        guard name.hasPrefix("\(log)."), name.hasSuffix(".jsonl") else { return false }
        return UInt64(name.dropFirst(log.count + 1).dropLast(6)) != nil
      }
      guard !found.isEmpty else { throw Failure("\(directory) has no file of a log '\(log)'") }
      return found.map { "\(directory)/\($0)" }
    } catch let error as FileError {
      throw Failure("\(error)")
    }
  }

  private func isDirectory(_ path: String) -> Bool {
    var status = stat()
    // SAFETY: it lives for the call.
    return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  private func key(beside paths: [String]) throws -> VerifyingKey {
    let folder =
      paths.first?.lastIndex(of: "/").flatMap { end in paths.first.map { String($0[...end]) } } ?? ""
    let path = publicKey ?? folder + AuditDirectory.publicKeyFile
    do {
      return try VerifyingKey(pem: String(decoding: try LocalFile(path).bytes(), as: UTF8.self))
    } catch let error as Failure {
      guard publicKey == nil else { throw error }
      throw Failure("\(error): name the server's \(AuditDirectory.publicKeyFile) with --public-key")
    } catch {
      throw Failure("\(path): \(error)")
    }
  }

  private func readHead() throws -> AuditHead? {
    guard let head else { return nil }
    guard let read = AuditHead(try LocalFile(head).bytes()) else {
      throw Failure("\(head) is no head of an audit log")
    }
    return read
  }

  /// What the check does not show, in words.
  private func unproved(_ report: AuditVerifier.Report) -> [String] {
    var unproved: [String] = []
    if publicKey == nil {
      unproved.append(
        "the public key is the one beside the files: whoever could change these could change that"
      )
    }
    if report.headSerial == nil {
      unproved.append("without --head: lines that are missing behind serial \(report.lastSerial) do not show")
    } else if let serial = report.headSerial, serial < report.lastSerial {
      unproved.append(
        "the head knows serial \(serial): lines that are missing behind \(report.lastSerial) do not show"
      )
    }
    if report.linesUnsigned > 0 {
      unproved.append("the last \(report.linesUnsigned) lines are not signed yet: no checkpoint follows them")
    }
    return unproved
  }

  private func show(_ report: AuditVerifier.Report, _ key: VerifyingKey) {
    let unproved = unproved(report)
    var rows = [
      ["log", "\(report.log) is \(report.isWhole ? "whole" : "NOT WHOLE")"],
      [
        "lines",
        "\(report.lines), \(report.entries) entries, \(report.checkpoints) checkpoints by key \(key.name)",
      ],
      ["last", "serial \(report.lastSerial), SHA-256 \(report.lastHash)"],
      ["dropped", "\(report.entriesDropped) entries that the server could not write"],
    ]
    rows += report.faults.map { ["fault", $0] }
    if report.faultsOmitted > 0 { rows.append(["", "and \(report.faultsOmitted) more"]) }
    rows += report.notices.map { ["notice", $0] }
    rows += unproved.map { ["not proved", $0] }
    Output.show(
      output,
      .object([
        ("log", .text(report.log)), ("whole", .flag(report.isWhole)), ("lines", .number(report.lines)),
        ("entries", .number(report.entries)), ("checkpoints", .number(report.checkpoints)),
        ("entries_dropped", .number(report.entriesDropped)), ("last_serial", .number(report.lastSerial)),
        ("last_hash", .text(report.lastHash)), ("lines_unsigned", .number(report.linesUnsigned)),
        ("head_serial", report.headSerial.map { .number($0) } ?? .null), ("signing_key", .text(key.name)),
        ("faults", .list(report.faults.map { .text($0) })),
        ("faults_omitted", .number(report.faultsOmitted)),
        ("notices", .list(report.notices.map { .text($0) })),
        ("not_proved", .list(unproved.map { .text($0) })),
      ]),
      text: Output.table(rows)
    )
  }
}
