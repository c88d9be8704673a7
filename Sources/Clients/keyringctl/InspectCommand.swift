import ArgumentParser
import HashTreeCollections
import KeyringCore
import KeyringStorage

struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Shows what is in a storage file or a backup, without a server and without secrets.",
    discussion: """
      Needs no key: names, types, lengths and times are not encrypted, key material is and is not shown. The file is
      checked as `verify` does without access; a torn tail is shown, and what is before it.
      """
  )
  @Argument(help: "A storage file (tenants/TENANT/keyring) or a backup.")
  var file: String
  @Flag(name: .long, help: "Also list the keys.")
  var keys = false
  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  func run() throws {
    let examined = try ExaminedFile(file)
    Output.show(output, json(examined), text: text(examined))
  }

  // MARK: What there is

  private func garbage(_ examined: ExaminedFile) -> UInt64 {
    Compaction.garbageBytes(
      storageBytes: UInt64(examined.content.validBytes),
      state: examined.content.state,
      idempotency: examined.content.idempotency
    )
  }

  private func wrappingKeys(_ state: KeyringState) -> [WrappingKey] {
    state.wrappingKeys.values.sorted {
      ($0.createdMilliseconds, $0.id.value) < ($1.createdMilliseconds, $1.id.value)
    }
  }

  private func listed(_ state: KeyringState) -> [(KeyIdentity, Key)] {
    guard keys else { return [] }
    return state.keys.map { ($0.key, $0.value) }.filter { $0.0 != .requestHashKey }
      .sorted { $0.0.encoded.lexicographicallyPrecedes($1.0.encoded) }
  }

  private func scope(_ identity: KeyIdentity) -> String {
    switch identity.scope {
    case .shared: "shared"
    case .instance(let name): "instance \(name)"
    case .server: "server"
    }
  }

  // MARK: For people

  private func text(_ examined: ExaminedFile) -> String {
    let content = examined.content
    var rows = [
      [examined.kind, file], ["tenant", content.state.tenant.text], ["keyring", "\(content.state.id)"],
      ["sequence", "\(content.position.sequence)"], ["digest", "\(content.position.digest)"],
      ["replaced", content.replaced.sequence == 0 ? "nothing" : "a file at \(content.replaced)"],
      ["batches", "\(content.positions.count)"],
      ["storage", "\(examined.storageBytes) bytes, \(garbage(examined)) of them garbage"],
      ["keys", "\(content.state.keyCount) (\(content.state.recordCount) records)"],
      ["remembered requests", "\(content.idempotency.entries.count)"],
    ]
    if let torn = content.tornTail { rows.append(["torn tail", torn]) }
    for key in wrappingKeys(content.state) {
      let records = content.state.recordsByWrappingKey[key.id, default: 0]
      rows.append([
        "wrapping key",
        "\(key.id), \(records) records, \(key.encryptions) encryptions, made \(dateText(key.createdMilliseconds)), CMK \(key.cmkID) (\(key.provider.rawValue))",
      ])
    }
    if let backup = examined.backup { rows += manifestRows(backup) }
    var text = Output.table(rows)
    if keys {
      text +=
        "\n\n"
        + Output.table(
          [["SCOPE", "OWNER", "KEY", "TYPE", "VERSIONS", "BYTES", "CREATED"]]
            + listed(content.state).map { identity, key in
              [
                scope(identity), shown(identity.owner), shown(identity.keyID), key.type.text,
                "\(key.records.count)", "\(key.latest.length)", dateText(key.latest.createdMilliseconds),
              ]
            }
        )
    }
    return text
  }

  private func manifestRows(_ backup: Backup) -> [[String]] {
    let manifest = backup.manifest
    return [
      ["taken", "\(dateText(manifest.timeMilliseconds)) by \(manifest.caller)"],
      ["sha256", "\(backup.digest)"],
      [
        "manifest's HMAC",
        backup.authentication.map { "under \($0.wrappingKeyID)" } ?? "none: no wrapping key could be had",
      ],
    ]
      + manifest.cmks.map { cmk in
        let isIncluded = backup.part(BackupPartName.cmk(cmk.id)) != nil && cmk.provider == .local
        let version = cmk.version == 0 ? "" : ", version \(cmk.version)"
        return [
          "CMK",
          "\(cmk.id) (\(cmk.provider.rawValue)\(version)), \(cmk.wrappingKeys) wrapping keys, \(isIncluded ? "in the backup" : "needed from its provider")",
        ]
      } + manifest.parts.map { ["part", "\($0.name), \($0.length) bytes, sha256 \($0.digest)"] }
      + manifest.unproved.map { ["not proved", "what is under the wrapping key \($0)"] }
  }

  /// Text as it is, else hexadecimal digits.
  private func shown(_ bytes: ArraySlice<UInt8>) -> String {
    String(validating: bytes, as: UTF8.self).map { printable($0) } ?? "0x" + hexadecimal(bytes)
  }

  // MARK: For programs

  private func json(_ examined: ExaminedFile) -> JSON {
    let content = examined.content
    var members: [(String, JSON)] = [
      ("file", .text(file)), ("kind", .text(examined.kind)), ("tenant", .text(content.state.tenant.text)),
      ("keyring_id", .text("\(content.state.id)")), ("sequence", .number(content.position.sequence)),
      ("digest", .text("\(content.position.digest)")),
      ("replaced_sequence", .number(content.replaced.sequence)),
      ("batches", .number(UInt64(content.positions.count))),
      ("storage_bytes", .number(UInt64(examined.storageBytes))),
      ("garbage_bytes", .number(garbage(examined))),
      ("torn_tail", content.tornTail.map { .text($0) } ?? .null),
      ("keys", .number(UInt64(content.state.keyCount))),
      ("records", .number(UInt64(content.state.recordCount))),
      ("remembered_requests", .number(UInt64(content.idempotency.entries.count))),
      ("wrapping_keys", .list(wrappingKeys(content.state).map { json($0, content.state) })),
    ]
    if let backup = examined.backup { members.append(("manifest", json(backup))) }
    if keys { members.append(("listing", .list(listed(content.state).map { json($0.0, $0.1) }))) }
    return .object(members)
  }

  private func json(_ key: WrappingKey, _ state: KeyringState) -> JSON {
    .object([
      ("id", .text("\(key.id)")), ("cmk_id", .text(key.cmkID.text)),
      ("provider", .text(key.provider.rawValue)),
      ("records", .number(UInt64(state.recordsByWrappingKey[key.id, default: 0]))),
      ("encryptions", .number(key.encryptions)), ("created", .text(dateText(key.createdMilliseconds))),
    ])
  }

  private func json(_ identity: KeyIdentity, _ key: Key) -> JSON {
    .object([
      ("scope", .text(scope(identity))), ("owner", .text(shown(identity.owner))),
      ("key_id", .text(shown(identity.keyID))), ("type", .text(key.type.text)),
      (
        "versions",
        .list(
          key.records.map { record in
            .object([
              ("version", .number(UInt64(record.version))), ("length", .number(UInt64(record.length))),
              ("created", .text(dateText(record.createdMilliseconds))),
              ("wrapping_key", .text("\(record.wrappingKeyID)")),
            ])
          }
        )
      ),
    ])
  }

  private func json(_ backup: Backup) -> JSON {
    let manifest = backup.manifest
    return .object([
      ("taken", .text(dateText(manifest.timeMilliseconds))), ("caller", .text(manifest.caller)),
      ("sha256", .text("\(backup.digest)")),
      ("hmac_wrapping_key", backup.authentication.map { .text("\($0.wrappingKeyID)") } ?? .null),
      ("proved", .flag(manifest.unproved.isEmpty)),
      ("unproved_wrapping_keys", .list(manifest.unproved.map { .text("\($0)") })),
      (
        "cmks",
        .list(
          manifest.cmks.map { cmk in
            .object([
              ("id", .text(cmk.id.text)), ("provider", .text(cmk.provider.rawValue)),
              ("version", .number(UInt64(cmk.version))), ("wrapping_keys", .number(UInt64(cmk.wrappingKeys))),
              (
                "included", .flag(cmk.provider == .local && backup.part(BackupPartName.cmk(cmk.id)) != nil)
              ),
            ])
          }
        )
      ),
      (
        "parts",
        .list(
          manifest.parts.map { part in
            .object([
              ("name", .text(part.name)), ("bytes", .number(part.length)),
              ("sha256", .text("\(part.digest)")),
            ])
          }
        )
      ),
    ])
  }
}
