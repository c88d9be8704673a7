import ConfigurationFiles
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Testing

@testable import TenantRegistry

/// Every call that fails while a tenant's settings are written: the old ones stand or the new ones, whole, and the next write settles which.
@Suite struct TenantFilesSweepCampaign {
  private let folder: TestDirectory
  private let plan = FaultPlan()
  private let name: TenantName

  init() throws {
    folder = try TestDirectory()
    name = try TenantName("acme")
    try FileManager.default.createDirectory(
      atPath: folder("tenants"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
  }

  private func tenants(_ calls: SystemCalls = SystemCalls()) throws -> TenantsDirectory {
    let directory = try DirectoryDescriptor(path: folder("tenants"), calls: calls)
    return TenantsDirectory(directory: directory, allowedEndpoints: [])
  }

  /// What a new process reads.
  private func read() throws -> PersistedState { try #require(try tenants().open(name)).load().persisted }

  private static func persisted(_ instance: String) throws -> PersistedState {
    var persisted = PersistedState()
    persisted.variables = [.cmkID: "cmk-\(instance)", .wrappingKeyTTL: "7m"]
    persisted.instances = [AllowedInstance(name: try InstanceName(instance))]
    return persisted
  }

  private static let faults: [(Interception, FaultPlan.Duration)] =
    [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES].flatMap { code in
      FaultPlan.Duration.allCases.map { (Interception.fail(code), $0) }
    } + [(.fail(EINTR), .once), (.short, .once), (.short, .persistent)]

  private func names() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder("tenants/acme")).sorted()
  }

  @Test func aWriteLeavesTheOldSettingsOrTheNew() async throws {
    _ = try tenants().create(name, yaml: "cmk_id: a\n")
    let files = try #require(try tenants(plan.calls).open(name))
    let (old, new) = (try Self.persisted("old"), try Self.persisted("new"))
    var points = 0
    for call in SystemCall.allCases {
      for (interception, duration) in Self.faults where call == .write || !interception.isShort {
        for number in 1...20 {
          await Task.yield()  // servers of other tests in this process have the same few threads
          try files.write(old)
          plan.arm(call, number, interception, duration)
          let result = Result { () throws(FileError) in try files.write(new) }
          let wasHit = plan.wasHit
          plan.disarm()
          let place = "\(call) \(number) \(interception) \(duration): \(result)"
          switch result {
          case .success: #expect(try read() == new, "\(place)")
          case .failure(.unknown): #expect([old, new].contains(try read()), "\(place)")
          case .failure: #expect(try read() == old, "\(place)")
          }
          if interception.mustPass { #expect(throws: Never.self, "\(place)") { try result.get() } }
          let next = try Self.persisted("next")
          try files.write(next)
          #expect(try read() == next, "\(place)")
          #expect(try names() == ["persisted.json", "tenant.yaml"], "\(place)")
          guard wasHit else { break }
          points += 1
        }
      }
    }
    Campaign.report("settings sweep, write", ["points": points])
    #expect(points >= 60)
  }

  // MARK: What is not what the server, or an operator, wrote

  private func refusal() throws -> String? {
    do {
      _ = try #require(try tenants().open(name)).load()
      return nil
    } catch let error as ConfigurationError {
      return "\(error)"
    }
  }

  /// In the place of either file; none may be taken for settings, and least of all for none.
  @Test(arguments: ["tenant.yaml", "persisted.json"]) func whatIsNoFileOfThisUserIsRefused(_ file: String)
    throws
  {
    let made = try tenants().create(name, yaml: "cmk_id: a\n")
    try made.write(try Self.persisted("i"))
    let manager = FileManager.default
    let (path, aside) = (folder("tenants/acme/\(file)"), folder("aside"))
    func expectRefused(_ what: String, _ make: () throws -> Void) throws {
      try manager.moveItem(atPath: path, toPath: aside)
      try make()
      let refusal = try refusal()
      #expect(refusal?.contains(file) == true, "\(what): \(refusal ?? "it was taken")")
      try manager.removeItem(atPath: path)
      try manager.moveItem(atPath: aside, toPath: path)
    }
    try expectRefused("zero length") { try folder.write("tenants/acme/\(file)", "") }
    try expectRefused("zeros") {
      try folder.write("tenants/acme/\(file)", String(repeating: "\0", count: 200))
    }
    try expectRefused("a directory") {
      try manager.createDirectory(atPath: path, withIntermediateDirectories: false)
    }
    try expectRefused("a FIFO") { unsafe #expect(mkfifo(path, 0o600) == 0) }
    try expectRefused("a link") { try manager.createSymbolicLink(atPath: path, withDestinationPath: aside) }
    try expectRefused("mode 0644") {
      try manager.copyItem(atPath: aside, toPath: path)
      try manager.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
    }
    try expectRefused("a large file") {
      try folder.write("tenants/acme/\(file)", "")
      let handle = try FileHandle(forWritingTo: URL(filePath: path))
      try handle.truncate(atOffset: 8 << 30)
      try handle.close()
    }
    if geteuid() == 0 {
      try expectRefused("another user's") {
        try manager.copyItem(atPath: aside, toPath: path)
        unsafe #expect(chown(path, 65_534, 65_534) == 0)
      }
    }
    #expect(try refusal() == nil)
  }

  /// The server alone writes this file, whole: whatever is damaged in it is not taken for another setting.
  @Test func everyDamageOfThePersistedSettingsIsRefused() async throws {
    let made = try tenants().create(name, yaml: "cmk_id: a\n")
    let written = try Self.persisted("i")
    try made.write(written)
    let path = folder("tenants/acme/persisted.json")
    let good = Array(try Data(contentsOf: URL(filePath: path)))
    var generator = Campaign.generator("persisted.json, bits")
    var count = 0
    func expectRefused(_ bytes: [UInt8], _ what: String) throws {
      try folder.write("tenants/acme/persisted.json", "")
      try Data(bytes).write(to: URL(filePath: path))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
      count += 1
      let refusal = try refusal()
      if refusal == nil, try read() == written { return }  // white space
      #expect(
        refusal?.contains("persisted.json") == true,
        "\(what): \(String(decoding: bytes, as: UTF8.self))"
      )
    }
    for index in good.indices {
      await Task.yield()
      let bits = Campaign.isLong ? Array(0..<8) : [Int.random(in: 0..<8, using: &generator)]
      for bit in bits {
        var bad = good
        bad[index] ^= 1 << UInt8(bit)
        try expectRefused(bad, "bit \(bit) of byte \(index)")
      }
      try expectRefused(Array(good[..<index]), "\(index) bytes")
    }
    try folder.write("tenants/acme/persisted.json", String(decoding: good, as: UTF8.self))
    #expect(try read() == written)
    Campaign.report("persisted.json damaged", ["refused": count])
  }
}

extension Interception {
  fileprivate var isShort: Bool { if case .short = self { true } else { false } }
  fileprivate var mustPass: Bool {
    switch self {
    case .proceed, .short: true
    case .fail(let code): code == EINTR
    }
  }
}
