public import KeyringCore

/// Who a certificate says its holder is; from its one URI SAN, and from nothing else.
public enum PeerIdentity: Hashable, Sendable {
  /// `spiffe://<trust-domain>/admin`
  case serviceAdmin
  /// `spiffe://<trust-domain>/tenant/<tenant>/admin`
  case tenantAdmin(TenantName)
  /// `spiffe://<trust-domain>/tenant/<tenant>/instance/<instance>`
  case instance(TenantName, InstanceName)

  /// Why a certificate names nobody.
  public struct Refusal: Error, Equatable, Sendable, CustomStringConvertible {
    /// In words.
    public let description: String
    init(_ description: String) { self.description = description }
  }

  /// The longest URI, in bytes (SPIFFE-ID section 2.3).
  public static let uriBytesMax = 2048

  /// Reads the URI SANs of a certificate, as bytes.
  ///
  /// There is exactly one (X509-SVID section 2), and it is one of the three forms to the byte: no percent sign, no
  /// upper case, no empty or dotted segment, no port, query, fragment or trailing slash can occur, because none matches.
  ///
  /// - Throws: `Refusal`.
  public static func parse(uriSANs: [[UInt8]], trustDomain: String) throws(Refusal) -> PeerIdentity {
    guard let uri = uriSANs.first, uriSANs.count == 1 else {
      throw Refusal("a certificate has exactly one URI SAN, not \(uriSANs.count)")
    }
    guard uri.count <= uriBytesMax else { throw Refusal("the URI SAN is longer than \(uriBytesMax) bytes") }
    let prefix = Array("spiffe://\(trustDomain)/".utf8)
    guard uri.starts(with: prefix) else {
      throw Refusal("the URI SAN is not of the trust domain \(trustDomain)")
    }
    let segments = uri[prefix.count...].split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
      .map { Array($0) }
    let names = segments.map { name($0) }
    switch (segments.count, names.first) {
    case (1, "admin"): return .serviceAdmin
    case (3, "tenant") where names[2] == "admin": return .tenantAdmin(try tenant(names[1]))
    case (4, "tenant") where names[2] == "instance":
      return .instance(try tenant(names[1]), try instance(names[3]))
    default: throw Refusal("the URI SAN is neither an administrator's nor an instance's")
    }
  }

  /// A segment of letters, digits and '-' only; nil for anything else, bytes that are no text among them.
  private static func name(_ segment: [UInt8]) -> String? {
    let isPlain = segment.allSatisfy { byte in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        || byte == UInt8(ascii: "-")
    }
    return isPlain ? String(decoding: segment, as: UTF8.self) : nil
  }

  private static func tenant(_ name: String?) throws(Refusal) -> TenantName {
    do {
      return try TenantName(name ?? "")
    } catch {
      throw Refusal("the URI SAN has no valid tenant: \(error)")
    }
  }

  private static func instance(_ name: String?) throws(Refusal) -> InstanceName {
    do {
      return try InstanceName(name ?? "")
    } catch {
      throw Refusal("the URI SAN has no valid instance: \(error)")
    }
  }

  /// The URI that says this, in a trust domain.
  public func uri(trustDomain: String) -> String {
    switch self {
    case .serviceAdmin: "spiffe://\(trustDomain)/admin"
    case .tenantAdmin(let tenant): "spiffe://\(trustDomain)/tenant/\(tenant)/admin"
    case .instance(let tenant, let instance): "spiffe://\(trustDomain)/tenant/\(tenant)/instance/\(instance)"
    }
  }

  /// True for 1 to 255 of a-z, 0-9, '.', '-', '_' (SPIFFE-ID section 2.1).
  public static func isTrustDomain(_ text: String) -> Bool {
    (1...255).contains(text.utf8.count)
      && text.utf8.allSatisfy { byte in
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
          || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || [0x2e, 0x2d, 0x5f].contains(byte)
      }
  }
}

/// What the handshake told of the peer.
public struct TLSPeer: Sendable {
  /// Who; nil on a client, whose peer is the server.
  public let identity: PeerIdentity?
  /// Validity of the certificate, Unix seconds.
  public let notBefore: Int64
  /// Validity of the certificate, Unix seconds.
  public let notAfter: Int64
  /// SHA-256 of the certificate, 64 hexadecimal digits.
  public let fingerprint: String
}
