import KeyringClient
import WireProtocol

/// What has to be done to have a fleet as its file says.
struct FleetPlan {
  /// Of one tenant.
  enum Step {
    case make(cmkID: String)
    case keep
    case change([SettingDifference])
    /// Why it cannot be as the file says.
    case refuse(String)
  }

  private(set) var steps: [(entry: FleetFile.Entry, step: Step)] = []
  /// On the server, and not in the file.
  var others = 0

  /// - Parameter results: of a dry run, in the order of the entries.
  init(_ entries: [FleetFile.Entry], _ results: [TenantApplyResult]) {
    for (entry, result) in zip(entries, results) {
      let step: Step
      if result.isUnchanged {
        step = .keep
      } else if let fixed = result.differences.first(where: { !$0.isDynamic }) {
        step = .refuse("\(Self.text(fixed)): \(Self.cure(fixed))")
      } else if !result.differences.isEmpty {
        step = .change(result.differences)
      } else if let refusal = result.refusal {
        step = .refuse("\(refusal)")
      } else {
        step = .make(cmkID: result.cmkID)
      }
      steps.append((entry, step))
    }
  }

  // MARK: Said

  static func text(_ difference: SettingDifference) -> String {
    if difference.name == "instances", difference.isDynamic { return "instance \(difference.wanted) added" }
    let present = difference.present.isEmpty ? "(not set)" : difference.present
    return "\(difference.name) \(present) -> \(difference.wanted)"
  }

  private static func cure(_ difference: SettingDifference) -> String {
    switch difference.name {
    case "provider", "endpoint", "credentials_file", "aws_profile", "role_arn", "role_external_id",
      "sts_endpoint":
      "`tenant move` changes it"
    case "credentials":
      "put the new file into the tenant's directory and `tenant reload` it, or `tenant move` it"
    default: "it is not changed at run time: change the tenant's tenant.yaml, and `tenant reload` it"
    }
  }

  /// A line for each tenant that is not kept, and one for all.
  var lines: [String] {
    var lines: [String] = []
    for (entry, step) in steps {
      switch step {
      case .make(let cmkID):
        let cmk = cmkID.isEmpty ? "new CMK" : "CMK \(cmkID)"
        lines.append("+ \(entry.name) (\(entry.call.provider), \(cmk))")
      case .keep: lines.append("= \(entry.name)")
      case .change(let differences):
        lines.append("~ \(entry.name): \(differences.map(Self.text).joined(separator: "; "))")
      case .refuse(let why): lines.append("! \(entry.name): \(why)")
      }
    }
    return lines + [summary]
  }

  /// How many of each.
  var counts: (make: Int, change: Int, keep: Int, refuse: Int) {
    var counts = (make: 0, change: 0, keep: 0, refuse: 0)
    for item in steps {
      switch item.step {
      case .make: counts.make += 1
      case .change: counts.change += 1
      case .keep: counts.keep += 1
      case .refuse: counts.refuse += 1
      }
    }
    return counts
  }

  private var summary: String {
    let counts = counts
    let refused = counts.refuse > 0 ? ", \(counts.refuse) that cannot be" : ""
    return
      "\(counts.make) to make, \(counts.change) to change, \(counts.keep) as the file says\(refused); on the server \(others) that the file does not name: left alone"
  }
}

/// How far a command has come, on standard error: a bar where that is a terminal, else a line now and then.
struct ProgressBar {
  let what: String
  let total: Int

  func show(_ done: Int) {
    guard Output.isErrorTerminal else {
      if done < total { Output.error("\(done) of \(total) \(what)\n") }
      return
    }
    let width = 40
    let filled = total == 0 ? width : done * width / total
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
    Output.error("\r[\(bar)] \(done) of \(total) \(what)\u{1b}[K" + (done == total ? "\n" : ""))
  }
}
