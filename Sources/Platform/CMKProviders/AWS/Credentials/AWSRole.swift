public import KeyringCore

/// An IAM role that credentials are exchanged for (STS AssumeRole).
public struct AWSRole: Sendable, Equatable {
  /// `arn:<partition>:iam::<account>:role/<path and name>`.
  public let arn: String
  /// What the role's owner wants named with each exchange (sts:ExternalId); not secret.
  public let externalID: String?
  /// What CloudTrail shows; nil: `keyring-<tenant>`.
  public let sessionName: String?

  /// Checks the parts, with the lengths and characters of the STS API reference.
  ///
  /// - Throws: `CMKError.configuration`.
  public init(arn: String, externalID: String?, sessionName: String?) throws(CMKError) {
    let parts = arn.split(separator: ":", maxSplits: 5, omittingEmptySubsequences: false)
    guard (20...2048).contains(arn.utf8.count), arn.utf8.allSatisfy(isVisible), parts.count == 6,
      parts[0] == "arn", !parts[1].isEmpty, parts[2] == "iam", parts[3].isEmpty,
      parts[4].utf8.count == 12, parts[4].allSatisfy(\.isWholeNumber), parts[5].hasPrefix("role/"),
      parts[5].utf8.count > 5
    else { throw .configuration("a role's ARN is arn:aws:iam::<account of 12 digits>:role/<name>") }
    guard Self.isWord(externalID ?? "00", 2...1224, besides: "_+=,.@:/-") else {
      throw .configuration("an external id is 2 to 1224 letters, digits and _+=,.@:/-")
    }
    guard Self.isWord(sessionName ?? "00", 2...64, besides: "_+=,.@-") else {
      throw .configuration("a role's session name is 2 to 64 letters, digits and _+=,.@-")
    }
    self.arn = arn
    self.externalID = externalID
    self.sessionName = sessionName
  }

  private static func isWord(_ text: String, _ lengths: ClosedRange<Int>, besides others: String) -> Bool {
    lengths.contains(text.utf8.count)
      && text.utf8.allSatisfy { isAlphanumeric($0) || others.utf8.contains($0) }
  }

  /// The session name, or the one of a tenant, cut to the 64 characters that STS takes.
  func sessionName(for tenant: TenantName) -> String {
    sessionName ?? String("keyring-\(tenant.text)".prefix(64))
  }
}
