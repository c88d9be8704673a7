import Foundation
import KeyringTestSupport
import Testing

/// The log lines that docs/DATABASES.md shows of one kind of database, by the number in front of each: what a real server says is compared
/// with them. `...` in one stands for anything.
struct DocumentedLines {
  private let lines: [Int: String]

  /// Of the chapter with this heading.
  init(of chapter: String) throws {
    let text = try String(contentsOfFile: "\(CClients.top)/docs/DATABASES.md", encoding: .utf8)
    let chapters = text.components(separatedBy: "\n## ")
    let own = try #require(chapters.first { $0.hasPrefix("\(chapter)\n") }, "\(chapter)")
    var lines: [Int: String] = [:]
    for line in own.split(separator: "\n") {
      guard let match = line.wholeMatch(of: /\ {4}\((\d+)\) (.*)/), let number = Int(match.1) else {
        continue
      }
      lines[number] = String(match.2)
    }
    self.lines = lines
  }

  /// How many there are.
  var count: Int { lines.count }

  /// The first line of a log that is as the documented one, of this server and instance.
  func find(_ number: Int, in log: String, port: Int, instance: String) throws -> Substring? {
    let line = try #require(lines[number], "(\(number)) is not in docs/DATABASES.md")
    let pieces = line.replacing("localhost:8550", with: "localhost:\(port)")
      .replacing(/instance (db|maria)\d/, with: "instance \(instance)").components(separatedBy: "...")
    return log.split(separator: "\n").first { real in
      var rest = real
      for piece in pieces {
        guard let range = rest.range(of: piece) else { return false }
        rest = rest[range.upperBound...]
      }
      // A line that does not end with `...` is shown to its end.
      return pieces.last == "" || rest.isEmpty
    }
  }

  /// Waits until a database says it.
  func expect(
    _ number: Int,
    of database: any RunningDatabase,
    port: Int,
    instance: String,
    _ location: SourceLocation = #_sourceLocation
  ) async throws {
    let isSaid = try await eventually {
      try find(number, in: database.log, port: port, instance: instance) != nil
    }
    let log = isSaid ? "" : try database.log
    #expect(isSaid, "(\(number)) of docs/DATABASES.md, in: \(log)", sourceLocation: location)
  }
}
