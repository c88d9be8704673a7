import ArgumentParser
import KeyringCore
import SecureMemory
import WireProtocol

struct KeyTransact: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "transact",
    abstract: "Makes several changes, all or none.",
    discussion: """
      FILE has one change a line, 1 to 128 of them; empty lines, and what follows a #, are left out:

        generate ID TYPE LENGTH
        store ID TYPE FILE         the material is the content of FILE
        rotate ID
        remove ID

      A later change sees what an earlier one did: `remove k` and `generate k AES 32` replace a key in one step.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The changes: a file, or - for standard input.")
  var file: String = "-"
  @Flag(name: .long, help: "Keys that all instances of the tenant share.")
  var shared = false
  @Option(name: .long, help: "The database user that the keys belong to.")
  var owner: String = ""

  func run() async throws {
    let lines = try Input.text(file).split(separator: "\n", omittingEmptySubsequences: false)
    var described: [(line: String, id: String)] = []
    var changes: [Change] = []
    for (index, line) in lines.enumerated() {
      let words = line.prefix { $0 != "#" }.split(separator: " ").map(String.init)
      guard let id = words.dropFirst().first else {
        if words.isEmpty { continue }
        throw Failure("line \(index + 1) of \(file) names no key: see `keyringctl help key transact`")
      }
      changes.append(try change(words, id, "line \(index + 1) of \(file)"))
      described.append((words[0], id))
    }
    guard !changes.isEmpty else { throw Failure("\(file) has no change: see `keyringctl help key transact`") }
    let (sequence, result) = try await connection.call(.transact(changes))
    guard case .transact(let versions) = result, versions.count == changes.count else { throw unexpected() }
    show(described, versions, sequence)
  }

  private func change(_ words: [String], _ id: String, _ place: String) throws -> Change {
    let name = KeyName(
      scope: shared ? .shared : .instance,
      owner: Array(owner.utf8),
      keyID: Array(id.utf8)
    )
    switch (words[0], words.count) {
    case ("generate", 4):
      guard let length = UInt32(words[3]) else {
        throw Failure("\(place): '\(words[3])' is no length in bytes")
      }
      return .generate(name, type: words[2], length: length)
    case ("store", 4): return .store(name, type: words[2], value: try Input.secret(words[3]))
    case ("rotate", 2): return .rotate(name)
    case ("remove", 2): return .remove(name)
    default: throw Failure("\(place) is no change: see `keyringctl help key transact`")
    }
  }

  private func show(_ described: [(line: String, id: String)], _ versions: [UInt32], _ sequence: UInt64) {
    let done = zip(described, versions)
    let members = done.map { change, version in
      JSON.object([
        ("change", .text(change.line)), ("key_id", .text(change.id)), ("version", .number(UInt64(version))),
      ])
    }
    Output.show(
      connection.output,
      .object([("sequence", .number(sequence)), ("changes", .list(members))]),
      text: done.map { change, version in
        "\(change.id): \(change.line)" + (version > 0 ? ", version \(version)" : "")
      }.joined(separator: "\n")
    )
  }
}
