import HashTreeCollections
import KeyringCore

@testable import KeyringStorage

/// What `read.py` lists, made of the content instead of the file.
enum GoldenListing {
  static func first(_ golden: GoldenKeyring) throws -> [String] {
    var lines = [head(golden, origin: 0)]
    for (batch, position) in zip(golden.batches, try golden.file().positions) {
      lines.append(
        "batch \(batch.commits[0].sequence)..\(position.sequence) digest \(position.digest) hmac \(batch.authenticator.wrappingKeyID) ok"
      )
      for commit in batch.commits { lines += list(commit) }
    }
    return lines
  }

  static func replacement(_ golden: GoldenKeyring) throws -> [String] {
    let (_, snapshot, positions) = try golden.replacement()
    let image = try golden.image()
    var lines = [head(golden, origin: 7)]
    lines.append("batch 7..7 digest \(snapshot.digest) hmac \(golden.second.wrappingKeyID) ok")
    lines.append("commit 7 at \(image.timeMilliseconds) by \(image.caller)")
    lines += image.wrappingKeys.map(list)
    for (identity, key) in image.keys.sorted(by: { $0.key.encoded.lexicographicallyPrecedes($1.key.encoded) })
    {
      lines += key.records.map { list(identity, key.type, $0) }
    }
    for entry in image.idempotency.entries {
      lines.append(
        "  remembered \(list(entry.idempotency)) by \(entry.caller) commit \(entry.sequence) at \(entry.timeMilliseconds)"
      )
    }
    lines.append("  horizon 0")
    lines.append("batch 8..8 digest \(positions[0].digest) hmac \(golden.second.wrappingKeyID) ok")
    lines += list(try golden.replaced())
    lines.append("batch 9..9 digest \(positions[1].digest) hmac \(golden.second.wrappingKeyID) ok")
    lines.append("commit 9 at 1700000001009 by \(GoldenKeyring.caller)")
    lines.append("  remove (shared, '', 'alpha')")
    return lines
  }

  private static func head(_ golden: GoldenKeyring, origin: Int) -> String {
    "tenant acme keyring \(golden.keyring) created 1700000000000 made at \(origin)"
  }

  private static func list(_ commit: Commit) -> [String] {
    let idempotency = commit.idempotency.map { " " + list($0) } ?? ""
    let line = "commit \(commit.sequence) at \(commit.timeMilliseconds) by \(commit.caller)\(idempotency)"
    return [line]
      + commit.operations.map { operation in
        switch operation {
        case .put(let identity, let type, let record): list(identity, type, record)
        case .remove(let identity): "  remove \(list(identity))"
        case .addWrappingKey(let key): list(key)
        case .replaced(let position): "  replaced \(position.sequence) digest \(position.digest)"
        }
      }
  }

  private static func list(_ idempotency: Commit.Idempotency) -> String {
    let versions = idempotency.versions.map { "\($0)" }.joined(separator: ",")
    return "id \(idempotency.id) hash \(idempotency.requestHash) versions \(versions)"
  }

  private static func list(_ identity: KeyIdentity) -> String {
    let scope =
      switch identity.scope {
      case .shared: "shared"
      case .instance(let name): "instance \(name)"
      case .server: "server"
      }
    let owner = String(decoding: identity.owner, as: UTF8.self)
    return "(\(scope), '\(owner)', '\(String(decoding: identity.keyID, as: UTF8.self))')"
  }

  private static func list(_ identity: KeyIdentity, _ type: KeyType, _ record: Record) -> String {
    "  put \(list(identity)) \(type) version \(record.version) length \(record.length)"
      + " created \(record.createdMilliseconds) record \(record.id) under \(record.wrappingKeyID)"
  }

  private static func list(_ key: WrappingKey) -> String {
    "  wrapping key \(key.id) cmk \(key.cmkID) provider \(key.provider.rawValue) created \(key.createdMilliseconds)"
      + " encryptions \(key.encryptions) commitment ok"
  }
}
