import ArgumentParser
import Glibc
import ImportFormats
import KeyringClient
import KeyringCore
import SecureMemory
import WireProtocol

struct ImportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Brings the keys of another keyring: all of them in one transaction, or none.",
    discussion: """
      With the certificate of the database instance whose keys they are. PATH is one of:

        a file of MySQL's component_keyring_file   JSON; owners, ids and types as they are in it
        a file of MySQL's plugin keyring_file 2.0  the same; its SHA-256 is checked, its obfuscation undone
        a directory of raw keys                    a file's name is its key's id, its bytes are the key (up to 16,384); owner and type are
                                                   --owner and --type for all of them; names that begin with a dot are passed over

      Stop the database first, so that no key is made meanwhile. The plan comes first: each key, and whether it is new, there already and the
      same (left as it is), there already and different (then nothing is imported, unless --skip-existing leaves those as they are too), or
      not allowed under the tenant's profile (then nothing is imported; the plan says which variable to set). --dry-run ends after it. What was
      stored is fetched again, and compared. Run again, it finds the same keys and stores nothing. Key material is shown nowhere.

      One import stores up to 10,000 keys that take up to 2 MiB of locked memory, each counted as the next power of two.

        keyringctl import /var/lib/mysql-keyring/component_keyring_file --dry-run
        keyringctl import /var/lib/mysql-keyring/keyring
        keyringctl import ./keys --type AES --shared
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "A file or a directory; it is only read.")
  var path: String
  @Flag(name: .long, help: "As keys that all instances of the tenant share, instead of the instance's own.")
  var shared = false
  @Flag(name: .long, help: "Shows the plan, and changes nothing.")
  var dryRun = false
  @Flag(name: .long, help: "Leaves keys that are there already as they are, also where they differ.")
  var skipExisting = false
  @Option(
    name: .long,
    help: "The database user that the keys of a directory belong to; empty for the server itself."
  )
  var owner: String?
  @Option(name: .long, help: "The type of the keys of a directory; SECRET by default.")
  var type: String?

  /// How much locked memory it takes, in bytes, a power of two: a file's own block of the arena, the keys taken from it, and one on its way, each
  /// of them a power of two, are less than eight times the file. Few are so long that RLIMIT_MEMLOCK does not allow it.
  static func lockedBytes(for path: String) -> Int {
    var status = stat()
    // SAFETY: path and status live for the call.
    let isFile = unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    let size = isFile ? min(Int(status.st_size), KeyFile.bytesMax) : 2 * ImportLimits.lockedBytesMax
    return max(2 << 20, 8 * ImportLimits.lockedBytes(size))
  }

  func run() async throws {
    let client = try connection.makeClient()
    do {
      try await run(client)
      await client.close()
    } catch {
      await client.close()
      throw error
    }
  }

  private func run(_ client: KeyringClient) async throws {
    let file: KeyFile
    do {
      file = try KeyFile(path: path, owner: Array((owner ?? "").utf8), type: type ?? "SECRET")
    } catch {
      throw Failure("nothing was imported: \(error)")
    }
    guard file.format == .directory || (owner == nil && type == nil) else {
      throw Failure("--owner and --type are for a directory of raw keys: \(path) has those of its keys in it")
    }
    guard !file.keys.isEmpty else { throw Failure("\(path) has no keys") }
    guard case .whoAmI(let identity) = try await client.call(.whoAmI).result else { throw unexpected() }
    guard !identity.instance.isEmpty else {
      throw Failure("keys are imported with an instance's certificate, and this is of \(identity.uri)")
    }
    var plan = ImportPlan(
      file: file,
      scope: shared ? .shared : .instance,
      identity: identity,
      skipsExisting: skipExisting
    )
    plan.comparisons = try await client.compare(plan.keys)
    if connection.output == .text { Output.line(plan.text) }
    if let refusal = plan.refusal { throw Failure("nothing was imported: \(refusal)") }
    guard !dryRun else { return finish(plan, sequence: nil) }
    let wanted = plan.wanted
    guard !wanted.isEmpty else { return finish(plan, sequence: 0) }
    let sequence = try await client.importKeys(wanted)
    let compared = try await client.compare(wanted, minSequence: sequence)
    let wrong = zip(wanted, compared).filter { $1 != .same }.map(\.0)
    guard wrong.isEmpty else {
      throw Failure(
        "the keys were stored, but \(wrong.count) of them are not fetched as they were sent, the first of them \(plan.shown(wrong[0])): "
          + "do not remove \(path)"
      )
    }
    finish(plan, sequence: sequence)
  }

  private func finish(_ plan: ImportPlan, sequence: UInt64?) {
    let stored = sequence == nil ? 0 : plan.wanted.count
    let left = plan.keys.count - plan.wanted.count
    guard connection.output == .text else {
      return Output.line(
        JSON.object([
          ("tenant", .text(plan.identity.tenant)), ("format", .text(plan.file.format.rawValue)),
          ("scope", .text(shared ? "shared" : "instance")), ("dry_run", .flag(dryRun)),
          ("stored", .number(UInt64(stored))), ("compared", .number(UInt64(stored))),
          ("left", .number(UInt64(left))), ("sequence", .number(sequence ?? 0)), ("plan", plan.json),
        ]).rendered
      )
    }
    guard let sequence else { return Output.line("dry run: nothing was changed") }
    guard stored > 0 else { return Output.line("nothing to do: all \(left) keys are there already") }
    Output.line(
      "\(stored) keys were stored in one transaction, at sequence \(sequence); all of them were fetched again, and are the same"
    )
  }
}

/// What an import would do, key by key.
struct ImportPlan {
  /// What becomes of one key.
  enum Step: Equatable {
    case store
    /// There already, and the same.
    case leaveSame
    /// There already, and different; `--skip-existing` leaves it.
    case leaveDifferent
    case conflict
    /// Why it cannot be stored.
    case forbidden(String)
  }

  let file: KeyFile
  let identity: Identity
  let skipsExisting: Bool
  let keys: [ImportedKey]
  /// How each key stands with the keyring; set once that is known.
  var comparisons: [KeyringClient.Comparison] = []

  init(file: KeyFile, scope: RequestedScope, identity: Identity, skipsExisting: Bool) {
    self.file = file
    self.identity = identity
    self.skipsExisting = skipsExisting
    keys = file.keys.map { key in
      ImportedKey(
        name: KeyName(scope: scope, owner: key.owner, keyID: key.keyID),
        type: key.type,
        value: key.value
      )
    }
  }

  var steps: [Step] { zip(keys, comparisons).map { step($0, $1) } }

  private func step(_ key: ImportedKey, _ comparison: KeyringClient.Comparison) -> Step {
    switch comparison {
    case .same: return .leaveSame
    case .differs: return skipsExisting ? .leaveDifferent : .conflict
    case .absent:
      if let why = objection(to: key, under: Profile(rawValue: identity.profile)) { return .forbidden(why) }
      return .store
    }
  }

  /// Why a key is not allowed under a profile; nil where it is, or where the profile is not known here.
  private func objection(to key: ImportedKey, under profile: Profile?) -> String? {
    do {
      let type = try KeyType(key.type)
      try profile?.check(type: type, length: key.value.count, source: .stored)
      return nil
    } catch {
      return "\(error)"
    }
  }

  /// What is stored.
  var wanted: [ImportedKey] { zip(keys, steps).filter { $1 == .store }.map(\.0) }

  /// Why nothing can be imported, and what to do; nil where it can.
  var refusal: String? {
    let steps = self.steps
    if let index = steps.firstIndex(where: { if case .forbidden = $0 { true } else { false } }),
      case .forbidden(let why) = steps[index]
    {
      return "\(shown(keys[index])): \(why); \(remedy(steps))"
    }
    let conflicts = steps.filter { $0 == .conflict }.count
    if conflicts > 0 {
      return "\(conflicts) keys are there already with another type or other material, and are not replaced: "
        + "--skip-existing leaves them as they are, `key remove` makes room"
    }
    if identity.isReadOnly, steps.contains(.store) {
      return
        "the tenant is read-only: an administrator's `set global read_only false --tenant \(identity.tenant)` lets it in"
    }
    do throws(ImportLimits.Exceeded) {
      try ImportLimits.check(wanted)
    } catch {
      return "\(error): import a part of them at a time"
    }
    return nil
  }

  /// The profile that would allow all of them.
  private func remedy(_ steps: [Step]) -> String {
    let new = zip(keys, comparisons).filter { $1 == .absent }.map(\.0)
    let profiles: [Profile] = [.general, .any]
    let enough = profiles.first { profile in
      new.allSatisfy { objection(to: $0, under: profile) == nil }
    }
    guard let enough else { return "no profile allows that" }
    return
      "an administrator's `set persist profile \(enough.rawValue) --tenant \(identity.tenant)` allows them"
  }

  /// A key's name, for people.
  func shown(_ key: ImportedKey) -> String {
    let id = printable(String(decoding: key.name.keyID, as: UTF8.self))
    guard !key.name.owner.isEmpty else { return "'\(id)'" }
    return "'\(id)' of \(printable(String(decoding: key.name.owner, as: UTF8.self)))"
  }

  private func text(_ step: Step) -> String {
    switch step {
    case .store: "new"
    case .leaveSame: "there already, the same"
    case .leaveDifferent: "there already, different: left as it is"
    case .conflict: "THERE ALREADY, DIFFERENT"
    case .forbidden(let why): "NOT ALLOWED: \(why)"
    }
  }

  /// For programs.
  private func name(_ step: Step) -> String {
    switch step {
    case .store: "store"
    case .leaveSame: "same"
    case .leaveDifferent: "left"
    case .conflict: "conflict"
    case .forbidden: "forbidden"
    }
  }

  private var head: String {
    let passedOver = file.passedOver > 0 ? " (\(file.passedOver) names with a dot passed over)" : ""
    let scope =
      keys.first?.name.scope == .shared ? "shared by its instances" : "of instance \(identity.instance)"
    return "\(file.format.rawValue): \(keys.count) keys\(passedOver), to tenant \(identity.tenant), \(scope)"
      + (identity.profile.isEmpty ? "" : ", under the profile \(identity.profile)")
  }

  var text: String {
    let rows = zip(keys, steps).map { key, step in
      [
        String(decoding: key.name.keyID, as: UTF8.self), String(decoding: key.name.owner, as: UTF8.self),
        key.type, "\(key.value.count)", text(step),
      ]
    }
    return head + "\n" + Output.table([["KEY", "OWNER", "TYPE", "BYTES", "PLAN"]] + rows)
  }

  var json: JSON {
    .list(
      zip(keys, steps).map { key, step in
        .object([
          ("key_id", .text(String(decoding: key.name.keyID, as: UTF8.self))),
          ("owner", .text(String(decoding: key.name.owner, as: UTF8.self))), ("type", .text(key.type)),
          ("length", .number(UInt64(key.value.count))), ("step", .text(name(step))),
        ])
      }
    )
  }
}
