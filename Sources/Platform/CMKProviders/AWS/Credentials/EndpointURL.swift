/// As much of a URL (RFC 3986) as deciding whether it may be asked for credentials takes.
struct EndpointURL: Sendable, Equatable {
  let isSecure: Bool
  /// In lower case; an IPv6 address in its brackets.
  let host: String
  /// Path and query.
  let path: String

  /// Takes `http` and `https` URLs without user name, fragment, or a character that no URL has.
  init?(_ text: String) {
    let rest: Substring
    if text.hasPrefix("https://") {
      (isSecure, rest) = (true, text.dropFirst(8))
    } else if text.hasPrefix("http://") {
      (isSecure, rest) = (false, text.dropFirst(7))
    } else {
      return nil
    }
    guard text.utf8.count <= 2048,
      text.utf8.allSatisfy({ isVisible($0) && !#"@#"<>\^`{|}"#.utf8.contains($0) })
    else { return nil }
    let authority = rest.prefix { $0 != "/" && $0 != "?" }
    path = String(rest[authority.endIndex...])
    let host: Substring
    if authority.hasPrefix("[") {
      guard let end = authority.firstIndex(of: "]") else { return nil }
      host = authority[...end]
      guard host.dropFirst().dropLast().allSatisfy({ $0.isHexDigit || $0 == ":" }) else { return nil }
    } else {
      host = authority.prefix { $0 != ":" }
      guard host.utf8.allSatisfy({ isAlphanumeric($0) || "-.".utf8.contains($0) }) else { return nil }
    }
    let port = authority[host.endIndex...]
    guard !host.isEmpty, port.isEmpty || Self.isPort(port) else { return nil }
    self.host = host.lowercased()
  }

  private static func isPort(_ text: Substring) -> Bool {
    guard text.first == ":", text.utf8.count <= 6,
      text.dropFirst().utf8.allSatisfy({ (0x30...0x39).contains($0) })
    else { return false }
    return (1...65_535).contains(Int(text.dropFirst()) ?? 0)
  }

  /// 127.0.0.0/8, [::1] and localhost.
  var isLoopback: Bool {
    if host == "localhost" || host == "[::1]" { return true }
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 4 && parts[0] == "127" && parts.allSatisfy(Self.isByte)
  }

  /// 0 to 255, without zeros before it.
  private static func isByte(_ text: Substring) -> Bool {
    guard let byte = UInt8(text) else { return false }
    return text == "\(byte)"
  }

  /// The link-local addresses of the container endpoints of ECS and EKS.
  var isContainerEndpoint: Bool { ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"].contains(host) }

  /// The link-local addresses of the instance metadata service.
  var isInstanceMetadata: Bool { ["169.254.169.254", "[fd00:ec2::254]"].contains(host) }
}
