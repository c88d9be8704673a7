import Foundation
import KeyringClient
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// keyringd itself under strace(1), which makes the Nth system call of a kind fail, for every N until an operation passes untouched: success, a
/// definite error or "unknown", then the old state or the new one, and everything acknowledged is there, before and after a restart.
@Suite(.serialized) struct SyscallSweepCampaign {
  static let canTrace = FileManager.default.isExecutableFile(atPath: "/usr/bin/strace")

  /// What is made to fail.
  struct Fault: CustomStringConvertible {
    let call: String
    let code: String
    /// Only on files of these names in the daemon's folder; all where there is none.
    var paths: [String] = []
    /// Another call that fails then, and how.
    var also: (call: String, code: String)?
    let description: String

    init(_ call: String, _ code: String, paths: [String] = [], also: (call: String, code: String)? = nil) {
      (self.call, self.code, self.paths, self.also) = (call, code, paths, also)
      description = "\(call) \(code)" + (also.map { ", then \($0.call) \($0.code)" } ?? "")
    }
  }

  private static func faults() -> [Fault] {
    let codes = ["EIO", "ENOSPC", "EDQUOT", "EINTR", "EMFILE", "EROFS", "EACCES"]
    let files = [
      "keyring", "keyring.new", "keyring.lock", "tenant.yaml", "persisted.json", "persisted.json.new",
    ]
    .map { "tenants/acme/\($0)" }
    let calls: [(name: String, paths: [String])] = [
      ("openat", []), ("pwrite64", []), ("fsync", []), ("fdatasync", []), ("/^rename", []), ("/^unlink", []),
      // Others of these are the network's and the runtime's.
      ("close", files + ["anchors/acme.anchor.new"]), ("write", ["log"]),
    ]
    var faults: [Fault] = []
    for (index, call) in calls.enumerated() {
      let few = [codes[index % codes.count], "EINTR"]
      for code in Campaign.isLong ? codes : few { faults.append(Fault(call.name, code, paths: call.paths)) }
    }
    return faults + [
      Fault("pwrite64", "ENOSPC"), Fault("pwrite64", "ENOSPC", also: ("ftruncate", "EIO")),
      Fault("fdatasync", "EIO", also: ("fsync", "ENOSPC")),
    ]
  }

  @Test(.enabled(if: canTrace)) func everyFailureLeavesTheOldStateOrTheNew() async throws {
    let swept = try await SweptDaemon()
    var points = 0
    for fault in Self.faults() {
      for action in SweptDaemon.Action.allCases {
        for number in 1...(Campaign.isLong ? 40 : 6) {
          // A signal comes once; else a disk may fail once, or from then on.
          let isPersistent = fault.code != "EINTR" && (points + number) % 2 == 0
          do {
            guard try await swept.hit(action, fault, number, isPersistent: isPersistent) else { break }
          } catch {
            Issue.record("\(action), \(fault), at \(number), later \(isPersistent): \(error)\n\(swept.state)")
            return
          }
          points += 1
        }
      }
      do {
        try await swept.restart()
      } catch {
        Issue.record("after \(fault): \(error)\n\(swept.state)")
        return
      }
    }
    let counts = swept.counts
    await swept.end()
    Campaign.report(
      "process sweep",
      [
        "points": points, "passed": counts.passed, "failed_definitely": counts.failed,
        "in_doubt": counts.doubts,
      ]
    )
    #expect(points >= 40 && counts.failed > 0 && counts.doubts > 0 && counts.passed > 0)
  }
}

/// A keyringd that is traced, and what it is known to have acknowledged.
final class SweptDaemon {
  enum Action: CaseIterable { case store, rotateKeys, setPersist, createCMK }

  private var daemon: TestDaemon
  private var client: TestClient
  private var admin: TestClient
  private var acknowledged: [String] = []
  private var graces = ["1h"]
  private var number = 0
  private(set) var counts = (passed: 0, failed: 0, doubts: 0)

  /// With `anchor: strict`, so that an anchor's calls are part of each change.
  init() async throws {
    let first = try await TestDaemon()
    try await first.makeTenant("acme")
    await first.shutdown()
    let yaml = try String(contentsOfFile: first.data("tenants/acme/tenant.yaml"), encoding: .utf8)
    try first.data.write("tenants/acme/tenant.yaml", yaml + "\nanchor: strict\noutage_grace: 1h\n")
    daemon = try await TestDaemon(pki: first.pki, data: first.data)
    client = try daemon.instance("acme", "db1")
    admin = try daemon.client(.serviceAdmin)
    _ = try await admin.call(.admin(.status("")))
    for name in ["a", "b", "c"] { try await store(name) }
  }

  private func store(_ name: String) async throws {
    _ = try await client.call(.store(.own(name), name))
    acknowledged.append(name)
  }

  // MARK: One fault

  /// - Returns: false where the call was not made as often.
  func hit(
    _ action: Action,
    _ fault: SyscallSweepCampaign.Fault,
    _ at: Int,
    isPersistent: Bool
  ) async throws -> Bool {
    number += 1
    let place = "\(action), \(fault), at \(at)\(isPersistent ? " and later" : "")"
    let when = "\(at)\(isPersistent ? "+" : "")"
    let trace = try await Trace(daemon, fault, when)
    let name = "k\(number)"
    let grace = "\(number)h"
    let refusal: Status?
    switch action {
    case .store: refusal = try await client.refusal(.store(.own(name), name))
    case .rotateKeys: refusal = try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false)))
    case .setPersist:
      refusal = try await admin.refusal(
        .admin(.variablesSet(tenant: "acme", name: "outage_grace", value: grace, .persist))
      )
    case .createCMK:
      refusal = try await admin.refusal(.admin(.cmk(tenant: "acme", .create, cmkID: "", days: 0)))
    }
    // Readers of what was there go on, whatever it is that fails.
    #expect(try await client.fetch(.own("a")) == hexadecimal("a".utf8), "\(place)")
    let wasHit = try await trace.end()
    #expect(daemon.process.isRunning, "\(place)")
    switch refusal?.reason {
    case nil: counts.passed += 1
    case .storageUnavailable?, .kmsUnreachable?: counts.failed += 1
    case .outcomeUnknown?: counts.doubts += 1
    default: Issue.record("\(place): \(String(describing: refusal))")
    }
    if fault.code == "EINTR" || !wasHit {
      #expect(refusal == nil, "\(place): \(String(describing: refusal))")
    }
    switch action {
    case .store: try await settle(name, refusal, place)
    case .setPersist: try await settle(grace, refusal: refusal, place)
    case .rotateKeys, .createCMK: break
    }
    try await check(place)
    return wasHit
  }

  /// The key is there, or is not, as was said; from then on it is as it is.
  private func settle(_ name: String, _ refusal: Status?, _ place: String) async throws {
    try await recovered()
    let found = try await client.fetch(.own(name))
    switch refusal?.reason {
    case nil: #expect(found == hexadecimal(name.utf8), "\(place)")
    case .outcomeUnknown?: #expect(found == nil || found == hexadecimal(name.utf8), "\(place)")
    default: #expect(found == nil, "\(place)")
    }
    if found != nil { acknowledged.append(name) }
  }

  private func settle(_ grace: String, refusal: Status?, _ place: String) async throws {
    let shown = try await outageGrace()
    switch refusal?.reason {
    case nil:
      #expect(shown == grace, "\(place)")
      graces = [grace]
    case .outcomeUnknown?: graces.append(grace)  // a restart tells
    default: #expect(graces.contains(shown), "\(place): \(shown)")
    }
  }

  private func outageGrace() async throws -> String {
    guard case .variablesList(let variables) = try await admin.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    return variables.first { $0.name == "outage_grace" }?.value ?? ""
  }

  /// Until the tenant writes again, as it does by itself.
  private func recovered() async throws {
    while let refusal = try await client.refusal(.remove(.own("never"))), refusal.reason != .keyAbsent {
      try #require([.storageUnavailable, .outcomeUnknown].contains(refusal.reason), "\(refusal)")
      try await Task.sleep(for: .milliseconds(20))
    }
    _ = try await client.refusal(.store(.own("touch"), "x"))
    while let refusal = try await client.refusal(.remove(.own("touch"))) {
      try #require([.storageUnavailable, .outcomeUnknown, .keyAbsent].contains(refusal.reason), "\(refusal)")
      if refusal.reason == .keyAbsent { _ = try await client.refusal(.store(.own("touch"), "x")) }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Everything acknowledged is there, and memory stands where the file stands.
  private func check(_ place: String) async throws {
    try await recovered()
    for name in acknowledged.suffix(12) + ["a", "b", "c"] {
      #expect(try await client.fetch(.own(name)) == hexadecimal(name.utf8), "\(place): \(name)")
    }
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    let bytes = Array(try Data(contentsOf: URL(filePath: daemon.data("tenants/acme/keyring"))))
    let content = try StorageFileReader.read(bytes, tenant: try TenantName("acme"))
    #expect(status.sequence == content.position.sequence, "\(place)")
    #expect(status.digest == hexadecimal(content.position.digest.bytes), "\(place)")
  }

  /// For a failure's message.
  var state: String {
    let log = (try? daemon.log) ?? ""  // there is none before it started
    return "running: \(daemon.process.isRunning), status \(daemon.process.status)\n\(log.suffix(2000))"
  }

  // MARK: Restarts

  func restart() async throws {
    for client in [client, admin] { await client.close() }
    await daemon.shutdown()
    daemon = try await TestDaemon(pki: daemon.pki, data: daemon.data)
    client = try daemon.instance("acme", "db1")
    admin = try daemon.client(.serviceAdmin)
    for name in acknowledged {
      #expect(try await client.fetch(.own(name)) == hexadecimal(name.utf8), "after a restart: \(name)")
    }
    let shown = try await outageGrace()
    #expect(graces.contains(shown), "after a restart: \(shown), not of \(graces)")
    graces = [shown]
    for folder in ["tenants/acme", "anchors", "cmks/acme"] {
      let names = try FileManager.default.contentsOfDirectory(atPath: daemon.data(folder))
      // A CMK that was not made leaves a temporary file until its folder is used again.
      if folder != "cmks/acme" { #expect(!names.contains { $0.hasSuffix(".new") }, "\(folder): \(names)") }
    }
  }

  func end() async {
    for client in [client, admin] { await client.close() }
    await daemon.shutdown()
  }
}

/// strace(1), attached to all threads of a daemon.
private struct Trace {
  private let folder: TestDirectory
  private let process: TestProcess

  init(_ daemon: TestDaemon, _ fault: SyscallSweepCampaign.Fault, _ when: String) async throws {
    folder = try TestDirectory()
    let calls = fault.call + (fault.also.map { ",\($0.call)" } ?? "")
    var arguments = ["-f", "-p", "\(daemon.process.id)", "-o", folder("trace"), "-e", "trace=\(calls)"]
    arguments += ["-e", "inject=\(fault.call):error=\(fault.code):when=\(when)"]
    if let also = fault.also { arguments += ["-e", "inject=\(also.call):error=\(also.code)"] }
    for path in fault.paths { arguments += ["-P", daemon.data(path)] }
    process = try TestProgram(path: "/usr/bin/strace").start(
      arguments,
      environment: [:],
      error: folder("error")
    )
    while true {
      let isRunning = process.isRunning
      let text = try String(contentsOfFile: folder("error"), encoding: .utf8)
      if text.contains("attached") { return }
      try #require(isRunning, "\(text)")
      try await Task.sleep(for: .milliseconds(5))
    }
  }

  /// - Returns: true if a call was made to fail.
  func end() async throws -> Bool {
    process.signal(SIGINT)
    await process.ended()
    return try String(contentsOfFile: folder("trace"), encoding: .utf8).contains("(INJECTED)")
  }
}
