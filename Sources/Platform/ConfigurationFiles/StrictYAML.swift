internal import Yams

/// A YAML mapping of which every key must be known, be there once, and hold what is expected; errors name file, line and column.
public struct StrictYAML {
  /// The longest configuration file, in bytes.
  public static let bytesMax = 64 * 1024

  private let file: String
  private let path: String
  private var entries: [String: Node]
  private let position: String

  /// Parses one document whose top level is a mapping.
  ///
  /// - Parameters:
  ///   - file: for messages.
  ///   - bytesMax: a longer text is refused.
  /// - Throws: naming file, line and column.
  public init(
    _ text: String,
    file: String,
    bytesMax: Int = StrictYAML.bytesMax
  ) throws(ConfigurationError) {
    guard text.utf8.count <= bytesMax else {
      throw ConfigurationError("\(file): larger than \(bytesMax) bytes")
    }
    let parser: Parser
    let node: Node?
    do {
      parser = try Parser(yaml: text)
      node = try parser.singleRoot()
    } catch {
      throw ConfigurationError("\(file): \(Self.oneLine("\(error)"))")
    }
    guard let node else { throw ConfigurationError("\(file): the file is empty") }
    // Nodes refer to their anchors weakly: the parser, which owns them, has to live while they are looked for.
    try withExtendedLifetime(parser) { () throws(ConfigurationError) in try Self.refuseAnchors(node, file) }
    try self.init(node, file: file, path: "")
  }

  private init(_ node: Node, file: String, path: String) throws(ConfigurationError) {
    self.file = file
    self.path = path
    position = Self.position(node, file)
    guard case .mapping(let mapping) = node else {
      throw ConfigurationError(
        "\(position): \(path.isEmpty ? "the file" : "'\(path)'") holds `key: value` lines"
      )
    }
    entries = [:]
    for (key, value) in mapping {
      guard let name = key.string else {
        throw ConfigurationError("\(Self.position(key, file)): a key is a word")
      }
      entries[name] = value
    }
  }

  private static func position(_ node: Node, _ file: String) -> String {
    guard let mark = node.mark else { return file }
    return "\(file):\(mark.line):\(mark.column)"
  }

  private static func oneLine(_ text: String) -> String {
    text.split(separator: "\n").prefix(2).joined(separator: " ").trimmingSpaces()
  }

  /// Aliases make small files large, and configuration needs none.
  private static func refuseAnchors(_ node: Node, _ file: String) throws(ConfigurationError) {
    guard node.anchor == nil else {
      throw ConfigurationError("\(position(node, file)): anchors and aliases are not allowed")
    }
    switch node {
    case .mapping(let mapping):
      for (key, value) in mapping {
        try refuseAnchors(key, file)
        try refuseAnchors(value, file)
      }
    case .sequence(let sequence): for item in sequence { try refuseAnchors(item, file) }
    case .scalar, .alias: break
    }
  }

  // MARK: Taking entries

  /// What a key is called in messages.
  private func full(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

  /// An error at this mapping's place.
  public func error(_ what: String) -> ConfigurationError { error(what, at: nil) }

  private func error(_ what: String, at node: Node?) -> ConfigurationError {
    ConfigurationError("\(node.map { Self.position($0, file) } ?? position): \(what)")
  }

  /// Takes a scalar and reads it with `read`, whose error text is put behind its place.
  public mutating func take<Value>(
    _ name: String,
    _ read: (String) throws(ConfigurationError) -> Value
  ) throws(ConfigurationError) -> Value? {
    guard let node = entries.removeValue(forKey: name) else { return nil }
    guard let text = node.scalar?.string else { throw error("'\(full(name))' is one value", at: node) }
    do throws(ConfigurationError) {
      return try read(text)
    } catch {
      throw self.error("'\(full(name))': \(error)", at: node)
    }
  }

  /// Takes a text that is not empty.
  public mutating func text(_ name: String) throws(ConfigurationError) -> String? {
    try take(name) { text throws(ConfigurationError) in
      guard !text.isEmpty else { throw ConfigurationError("has no value") }
      return text
    }
  }

  /// Takes a whole number of the range.
  public mutating func number(_ name: String, _ range: ClosedRange<Int>) throws(ConfigurationError) -> Int? {
    try take(name) { text throws(ConfigurationError) in
      guard let number = Int(text), range.contains(number) else {
        throw ConfigurationError(
          "a number from \(range.lowerBound) to \(range.upperBound) is expected, not '\(text)'"
        )
      }
      return number
    }
  }

  /// Takes `true` or `false`, as MySQL writes them too.
  public mutating func flag(_ name: String) throws(ConfigurationError) -> Bool? { try take(name, Self.flag) }

  /// Takes a time, as `duration(_:)` reads it.
  public mutating func duration(_ name: String) throws(ConfigurationError) -> Duration? {
    try take(name, Self.duration)
  }

  /// Takes a list of words, each read by `read`; a single word gives a list of one.
  public mutating func words<Value>(
    _ name: String,
    _ read: (String) throws(ConfigurationError) -> Value
  ) throws(ConfigurationError) -> [Value]? {
    guard let node = entries.removeValue(forKey: name) else { return nil }
    let items: [Node]
    switch node {
    case .scalar: items = [node]
    case .sequence(let sequence): items = Array(sequence)
    case .mapping, .alias: throw error("'\(full(name))' is a list", at: node)
    }
    var values: [Value] = []
    for item in items {
      guard let word = item.scalar?.string else {
        throw error("'\(full(name))' is a list of words", at: item)
      }
      do throws(ConfigurationError) {
        values.append(try read(word))
      } catch {
        throw self.error("'\(full(name))': \(error)", at: item)
      }
    }
    return values
  }

  /// An item of a list that has words and mappings.
  public enum Item {
    case word(String)
    case mapping(StrictYAML)
  }

  /// Takes a list of words and mappings, each read by `read`; a single word gives a list of one.
  public mutating func items<Value>(
    _ name: String,
    _ read: (Item) throws(ConfigurationError) -> Value
  ) throws(ConfigurationError) -> [Value]? {
    guard let node = entries[name], case .sequence(let sequence) = node else {
      return try words(name) { word throws(ConfigurationError) in try read(.word(word)) }
    }
    entries[name] = nil
    var values: [Value] = []
    for node in sequence {
      if case .mapping = node {
        values.append(try read(.mapping(try StrictYAML(node, file: file, path: full(name)))))
        continue
      }
      guard let word = node.scalar?.string else {
        throw error("'\(full(name))' is a list of words", at: node)
      }
      do throws(ConfigurationError) {
        values.append(try read(.word(word)))
      } catch {
        throw self.error("'\(full(name))': \(error)", at: node)
      }
    }
    return values
  }

  /// Takes a mapping.
  public mutating func mapping(_ name: String) throws(ConfigurationError) -> StrictYAML? {
    guard let node = entries.removeValue(forKey: name) else { return nil }
    return try StrictYAML(node, file: file, path: full(name))
  }

  /// The entries of a mapping whose keys are free, in order of their names.
  public mutating func takeAll() -> [(name: String, text: String?)] {
    defer { entries = [:] }
    return entries.sorted { $0.key < $1.key }.map { ($0.key, $0.value.scalar?.string) }
  }

  /// Takes a list of mappings.
  public mutating func list(_ name: String) throws(ConfigurationError) -> [StrictYAML]? {
    guard let node = entries.removeValue(forKey: name) else { return nil }
    guard case .sequence(let sequence) = node else { throw error("'\(full(name))' is a list", at: node) }
    var items: [StrictYAML] = []
    for item in sequence { items.append(try StrictYAML(item, file: file, path: full(name))) }
    return items
  }

  /// Nothing may be left once all known keys are taken.
  public func finish(known: [String]) throws(ConfigurationError) {
    guard let (name, node) = entries.min(by: { $0.key < $1.key }) else { return }
    let close = known.first { $0.filter { $0 != "_" } == name.lowercased().filter { $0 != "_" && $0 != "-" } }
    throw error("unknown key '\(full(name))'" + (close.map { "; did you mean '\($0)'?" } ?? ""), at: node)
  }

  // MARK: Values

  /// Reads `true`, `on`, `1`, `false`, `off`, `0`.
  public static func flag(_ text: String) throws(ConfigurationError) -> Bool {
    switch text {
    case "true", "on", "ON", "1": return true
    case "false", "off", "OFF", "0": return false
    default: throw ConfigurationError("true or false is expected, not '\(text)'")
    }
  }

  /// The longest time that configuration takes, ten years: in nanoseconds, a sum of several still fits 64 bits.
  static let millisecondsMax: Int64 = 10 * 365 * 24 * 3_600_000

  /// `0`, `90s`, `5m`, `24h`, `500ms`.
  public static func duration(_ text: String) throws(ConfigurationError) -> Duration {
    let units: [(String, Int64)] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
    if text == "0" { return .zero }
    for (unit, milliseconds) in units where text.hasSuffix(unit) {
      guard let number = Int64(text.dropLast(unit.count)), number >= 0 else { continue }
      guard number <= millisecondsMax / milliseconds else {
        throw ConfigurationError("a time of at most ten years (87600h) is expected, not '\(text)'")
      }
      return .milliseconds(number * milliseconds)
    }
    throw ConfigurationError("a time such as 500ms, 90s, 5m or 24h is expected, not '\(text)'")
  }
}

extension String {
  fileprivate func trimmingSpaces() -> String { split(separator: " ").joined(separator: " ") }
}

extension Duration {
  /// As configuration has it.
  public var text: String {
    let milliseconds = components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000
    for (unit, size) in [("h", Int64(3_600_000)), ("m", 60_000), ("s", 1000)]
    where milliseconds > 0 && milliseconds % size == 0 {
      return "\(milliseconds / size)\(unit)"
    }
    return milliseconds == 0 ? "0" : "\(milliseconds)ms"
  }
}
