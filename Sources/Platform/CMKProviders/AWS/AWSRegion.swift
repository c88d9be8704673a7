/// A part of AWS with accounts and credentials of its own, named as in ARNs (botocore's partitions.json).
enum AWSPartition: String, Sendable, CaseIterable {
  case aws
  case china = "aws-cn"
  case usGovernment = "aws-us-gov"
  case europeanSovereign = "aws-eusc"
  case iso = "aws-iso"
  case isoB = "aws-iso-b"
  case isoE = "aws-iso-e"
  case isoF = "aws-iso-f"

  /// What its regions' names begin with; nil: with what no other partition's do.
  private var regionPrefix: String? {
    switch self {
    case .aws: nil
    case .china: "cn-"
    case .usGovernment: "us-gov-"
    case .europeanSovereign: "eusc-"
    case .iso: "us-iso-"
    case .isoB: "us-isob-"
    case .isoE: "eu-isoe-"
    case .isoF: "us-isof-"
    }
  }

  /// What its hosts' names end in.
  var hostSuffix: String {
    switch self {
    case .aws, .usGovernment: "amazonaws.com"
    case .china: "amazonaws.com.cn"
    case .europeanSovereign: "amazonaws.eu"
    case .iso: "c2s.ic.gov"
    case .isoB: "sc2s.sgov.gov"
    case .isoE: "cloud.adc-e.uk"
    case .isoF: "csp.hci.ic.gov"
    }
  }

  /// The partition that a region is in.
  init(of region: AWSRegion) {
    self =
      Self.allCases.first { partition in
        partition.regionPrefix.map { region.text.hasPrefix($0) } ?? false
      } ?? .aws
  }
}

/// A region's name, checked: it becomes part of a host's.
struct AWSRegion: Hashable, Sendable, CustomStringConvertible {
  /// 2 to 32 of a-z, 0-9 and '-', from a letter to a digit, as in `eu-central-1`.
  let text: String

  /// Nil where `text` is none.
  init?(_ text: String) {
    func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }
    func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    let bytes = text.utf8
    guard let first = bytes.first, let last = bytes.last, (2...32).contains(bytes.count), isLetter(first),
      isDigit(last), bytes.allSatisfy({ isLetter($0) || isDigit($0) || $0 == UInt8(ascii: "-") })
    else { return nil }
    self.text = text
  }

  var description: String { text }
  var partition: AWSPartition { AWSPartition(of: self) }
}
