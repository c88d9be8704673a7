internal import HTTPTransport
public import KeyringCore

/// Where a tenant's KMS is.
public struct AWSPlace: Sendable, Equatable {
  /// `eu-central-1` say; nil: the region of the CMK's ARN.
  public let region: String?
  /// The URL of another endpoint than AWS's public one: VPC, FIPS, an emulator. Plain `http` to this machine alone.
  public let endpoint: String?

  /// Puts both together, unchecked: `settled` checks.
  public init(region: String?, endpoint: String?) {
    self.region = region
    self.endpoint = endpoint
  }

  /// The same place with its region, which is that of the CMK's ARN where there is one.
  ///
  /// - Throws: `CMKError.configuration` where `cmk` is none of AWS, where there is no region, where the ARN has another one than is configured,
  ///   and where the endpoint is no URL.
  public func settled(for cmk: CMKID) throws(CMKError) -> AWSPlace {
    AWSPlace(region: try target(of: KeyReference(cmk)).region.text, endpoint: endpoint)
  }

  /// Where calls go that name this CMK.
  func target(of reference: KeyReference) throws(CMKError) -> KMSTarget {
    let configured = try regionInForce()
    guard let region = reference.region ?? configured else { throw Self.noRegion }
    guard configured == nil || configured == region else {
      throw .configuration(
        "the cmk_id \(reference) is in \(region), and the region is configured as \(configured?.text ?? ""): leave the region out, or correct it"
      )
    }
    return try target(in: region)
  }

  /// Where calls go that name no CMK.
  func target() throws(CMKError) -> KMSTarget {
    guard let region = try regionInForce() else { throw Self.noRegion }
    return try target(in: region)
  }

  /// Where calls go that are made in `region`.
  func target(in region: AWSRegion) throws(CMKError) -> KMSTarget {
    guard let endpoint else {
      let url = "https://kms.\(region).\(region.partition.hostSuffix)/"
      return KMSTarget(region: region, url: url, scheme: .secure)
    }
    guard endpoint.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else { throw Self.notAURL(endpoint) }
    let scheme: HTTPRequest.Scheme
    let rest: Substring
    if endpoint.hasPrefix("https://") {
      (scheme, rest) = (.secure, endpoint.dropFirst(8))
    } else if endpoint.hasPrefix("http://") {
      (scheme, rest) = (.plainToLoopback, endpoint.dropFirst(7))
    } else {
      throw Self.notAURL(endpoint)
    }
    guard let first = rest.first, first != "/", !rest.contains("@"), !rest.contains("?"), !rest.contains("#")
    else { throw Self.notAURL(endpoint) }
    return KMSTarget(region: region, url: rest.contains("/") ? endpoint : endpoint + "/", scheme: scheme)
  }

  /// - Throws: `CMKError.configuration` where what is configured is no region's name.
  func regionInForce() throws(CMKError) -> AWSRegion? {
    guard let region else { return nil }
    guard let checked = AWSRegion(region) else {
      throw .configuration(
        "the region '\(printable(region))' is no name of an AWS region, as eu-central-1 is one"
      )
    }
    return checked
  }

  private static let noRegion = CMKError.configuration(
    "there is no AWS region: configure one, or give the cmk_id as an ARN, which has it"
  )

  private static func notAURL(_ endpoint: String) -> CMKError {
    .configuration("the endpoint '\(printable(endpoint))' is no URL of a KMS, as https://HOST/ is one")
  }
}

/// Where one call goes.
struct KMSTarget: Sendable {
  /// Of the signature.
  let region: AWSRegion
  let url: String
  let scheme: HTTPRequest.Scheme
}
