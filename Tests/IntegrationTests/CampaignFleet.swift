import CMKProviders
import Foundation
import Glibc
import KeyringClient
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

@testable import CMKProviders

/// A keyringd of its own, eight tenants in it, and what each must hold: written to until a fault, started again, compared.
final class CampaignFleet {
  /// One tenant, as the test knows it.
  struct Member: Sendable {
    let name: String
    var writers: [CampaignWriter]
    var administrator: CampaignAdministrator
    /// What is wrong with the tenant as a whole.
    var violations: [Violation] = []

    /// All that is wrong, with where.
    var allViolations: [Violation] {
      let all = violations + administrator.violations + writers.flatMap(\.violations)
      return all.map { Violation("\(name): \($0)") }
    }
  }

  /// What a campaign did, for its line in docs/RELIABILITY.md.
  struct Counts {
    var acknowledged = 0
    var administered = 0
    var inDoubt = 0
    var inDoubtHappened = 0
    /// While a disk failed: changes that were said not to have happened, and answers that it is not known.
    var refused = 0
    var unknown = 0
    /// Temporary files that starts after a fault met, by what they were to become.
    var leftovers: [String: Int] = [:]
    var violations: [Violation] = []
  }

  let pki: TestPKI
  let directories: TestDaemon.Directories
  private let configuration = ["secure_memory_bytes: 16777216"]
  private let environment: [String: String]
  private let program: TestProgram?
  private(set) var daemon: TestDaemon
  private var certificates: [String: TLSConfiguration] = [:]
  var members: [Member] = []
  private(set) var counts = Counts()

  /// Starts keyringd on directories that are empty, and makes the tenants.
  ///
  /// - Parameters:
  ///   - environment: of keyringd.
  ///   - program: instead of the one that is built beside the tests.
  init(
    _ directories: TestDaemon.Directories,
    tenants: Int = 8,
    environment: [String: String] = [:],
    program: TestProgram? = nil,
    generator: inout SeededGenerator
  ) async throws {
    pki = try TestPKI()
    self.directories = directories
    self.environment = environment
    self.program = program
    daemon = try await TestDaemon(
      pki: pki,
      directories: directories,
      configuration: configuration,
      environment: environment,
      program: program
    )
    try await makeTenants(tenants, &generator)
  }

  private func makeTenants(_ count: Int, _ generator: inout SeededGenerator) async throws {
    let admin = try client(.serviceAdmin)
    for number in 0..<count { try await makeTenant(number, admin, &generator) }
    await admin.close()
  }

  /// Half of them make garbage for compaction; one in four has the profile with the longest values, and one in four a strict anchor.
  func makeTenant(_ number: Int, _ admin: KeyringClient, _ generator: inout SeededGenerator) async throws {
    let name = "tenant-\(number)"
    let profile: Profile = number % 4 == 3 ? .general : .keyringAWS
    let create = TenantCreateCall(tenant: name, profile: profile.rawValue, anyInstance: true)
    guard case .tenantCreate(let cmkID, _) = try await admin.once(.admin(.tenantCreate(create))) else {
      throw UnexpectedReply()
    }
    func writer(_ kind: ChangePlan.Kind, _ id: String) -> CampaignWriter {
      let most = profile == .general ? 16_384 : 4096
      let seeded = SeededGenerator(seed: generator.next())
      return CampaignWriter(ChangePlan(kind, id, valueBytesMax: most, seeded))
    }
    members.append(
      Member(
        name: name,
        writers: [writer(.mixed, "a"), writer(number % 2 == 1 ? .heavy : .mixed, "b")],
        administrator: CampaignAdministrator(name, cmkID: cmkID, SeededGenerator(seed: generator.next()))
      )
    )
    if number % 4 == 2 { try makeAnchorStrict(name) }
  }

  /// In force from the next start.
  private func makeAnchorStrict(_ tenant: String) throws {
    let path = "\(directories.tenants)/\(tenant)/tenant.yaml"
    let file = try FileHandle(forWritingTo: URL(filePath: path))
    try file.seekToEnd()
    try file.write(contentsOf: Data("anchor: strict\n".utf8))
    try file.synchronize()
    try file.close()
  }

  // MARK: Clients

  func client(_ identity: PeerIdentity) throws -> KeyringClient {
    let uri = identity.uri(trustDomain: pki.trustDomain)
    let files = try certificates[uri] ?? pki.client(identity)
    certificates[uri] = files
    return try KeyringClient(
      KeyringClientConfiguration(
        host: "localhost",
        port: daemon.port,
        certificateFile: files.certificateFile,
        privateKeyFile: files.privateKeyFile,
        authorityFile: files.authorityFile
      )
    )
  }

  func instance(_ tenant: String) throws -> KeyringClient {
    try client(.instance(TenantName(tenant), InstanceName("db1")))
  }

  // MARK: A phase of writing, and its end

  private enum Finished: Sendable {
    case writer(Int, Int, CampaignWriter)
    case administrator(Int, CampaignAdministrator)
    case fault
  }

  /// Lets everybody write until `fault` ends the counting and brings the fault; it must leave no keyringd running, so that every call ends.
  ///
  /// - Parameters:
  ///   - step: what all administrators do at first.
  ///   - failing: whose writers go on whatever fails, and whose administrators do nothing.
  func write(
    all step: CampaignAdministrator.Step? = nil,
    failing: Set<Int> = [],
    until fault: @escaping @Sendable (CountingEnd, TestDaemon) async throws -> Void
  ) async throws {
    let end = CountingEnd()
    let admin = try client(.serviceAdmin)
    let instances = try members.map { try instance($0.name) }
    let (members, daemon) = (self.members, self.daemon)
    try await withThrowingTaskGroup(of: Finished.self) { group in
      for (index, member) in members.enumerated() {
        for (number, writer) in member.writers.enumerated() {
          let client = instances[index]
          group.addTask {
            var writer = writer
            if failing.contains(index) {
              await writer.persevere(client, until: end)
            } else {
              await writer.run(client, until: end)
            }
            return .writer(index, number, writer)
          }
        }
        if failing.contains(index) { continue }
        group.addTask {
          var administrator = member.administrator
          await administrator.run(admin, first: step, until: end)
          return .administrator(index, administrator)
        }
      }
      group.addTask {
        try await fault(end, daemon)
        return .fault
      }
      for try await finished in group { take(finished) }
    }
    for client in instances + [admin] { await client.close() }
  }

  private func take(_ finished: Finished) {
    switch finished {
    case .writer(let index, let number, let writer): members[index].writers[number] = writer
    case .administrator(let index, let administrator): members[index].administrator = administrator
    case .fault: break
    }
  }

  // MARK: Starting again

  /// Starts keyringd on what the disk has, and compares every tenant with what must be there.
  ///
  /// - Returns: what is wrong.
  @discardableResult
  func startAndCompare() async throws -> [Violation] {
    for path in try temporaryFiles() { counts.leftovers[Self.target(path), default: 0] += 1 }
    daemon = try await TestDaemon(
      pki: pki,
      directories: directories,
      configuration: configuration,
      environment: environment,
      program: program
    )
    return try await compare()
  }

  /// Compares every tenant of the running server with what must be there; then the files; then sends what was in doubt again.
  func compare() async throws -> [Violation] {
    let admin = try client(.serviceAdmin)
    let instances = try members.map { try instance($0.name) }
    typealias Doubts = [(change: PlannedChange, happened: Bool?)?]
    var doubts: [Doubts] = members.map { _ in [] }
    let members = self.members
    await withTaskGroup(of: (Int, Member, Doubts).self) { group in
      for (index, member) in members.enumerated() {
        let instance = instances[index]
        group.addTask {
          var member = member
          let doubts = await member.settle(instance, admin)
          return (index, member, doubts)
        }
      }
      for await (index, member, found) in group { (self.members[index], doubts[index]) = (member, found) }
    }
    var violations = self.members.flatMap(\.allViolations)
    if violations.isEmpty {
      violations += try await files()
      for (index, doubts) in doubts.enumerated() {
        await self.members[index].repeatChanges(doubts, instances[index])
      }
      violations += self.members.flatMap(\.allViolations)
    }
    for client in instances + [admin] { await client.close() }
    if !violations.isEmpty {
      let said = try daemon.log.split(separator: "\n").filter { $0.contains(" error ") }
      violations += said.map { Violation("the server said: \($0)", isSaid: true) }
    }
    count(violations)
    return violations
  }

  private func count(_ violations: [Violation]) {
    let writers = members.flatMap(\.writers)
    counts.acknowledged = writers.reduce(0) { $0 + $1.acknowledged }
    counts.administered = members.reduce(0) { $0 + $1.administrator.acknowledged.values.reduce(0, +) }
    counts.inDoubt = writers.reduce(0) { $0 + $1.inDoubt }
    counts.inDoubtHappened = writers.reduce(0) { $0 + $1.inDoubtHappened }
    counts.refused = writers.reduce(0) { $0 + $1.refused }
    counts.unknown = writers.reduce(0) { $0 + $1.unknown }
    counts.violations += violations
  }

  /// Changes of a tenant that were refused, or of which it was not known, while its disk failed.
  func failures(of member: Int) -> Int {
    members[member].writers.reduce(0) { $0 + $1.refused + $1.unknown }
  }

  /// Changes of all tenants but the first that were acknowledged.
  var acknowledgedByOthers: Int {
    members.dropFirst().flatMap(\.writers).reduce(0) { $0 + $1.acknowledged }
  }

  func kill() async {
    daemon.process.signal(SIGKILL)
    await daemon.process.ended()
  }

  // MARK: Files

  private func names(_ folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder)
  }

  /// What is in the directories that is not there for good.
  func temporaryFiles() throws -> [String] {
    var found: [String] = []
    for folder in [directories.tenants, directories.cmks] {
      for tenant in try names(folder) where tenant.hasPrefix("tenant-") {
        found += try names("\(folder)/\(tenant)").filter { !isLasting($0) }.map {
          "\(folder)/\(tenant)/\($0)"
        }
      }
    }
    found += try names(directories.anchors).filter { !$0.hasSuffix(".anchor") }.map {
      "\(directories.anchors)/\($0)"
    }
    found += try names(directories.cmks).filter {
      !["root-check", ".lock"].contains($0) && !$0.hasPrefix("tenant-")
    }.map { "\(directories.cmks)/\($0)" }
    return found
  }

  /// What kind of file a temporary one was to become.
  private static func target(_ path: String) -> String {
    let name = path.split(separator: "/").last ?? ""
    return name.hasPrefix("local-")
      ? "cmk" : name.contains(".anchor") ? "anchor" : String(name.prefix { $0 != "." })
  }

  private func isLasting(_ name: String) -> Bool {
    ["tenant.yaml", "persisted.json", "keyring", "keyring.lock"].contains(name)
      || name.wholeMatch(of: /local-[0-9a-f]{32}/) != nil
  }

  /// Temporary files that stay: a server that runs writes an anchor behind, and that one is gone in a moment.
  private func leftovers() async throws -> [String] {
    var left = try temporaryFiles()
    for _ in 0..<100 where !left.isEmpty {
      try await Task.sleep(for: .milliseconds(20))
      left = left.filter { FileManager.default.fileExists(atPath: $0) }
    }
    return left
  }

  /// Every storage file verifies, every CMK file opens, nothing temporary is left.
  private func files() async throws -> [Violation] {
    var violations = try await leftovers().map { Violation("\($0) is left after its tenant was opened") }
    let root = try RootKey.load(
      .file(daemon.data("root.key")),
      directory: DirectoryDescriptor(path: directories.cmks)
    )
    for member in members {
      let tenant = try TenantName(member.name)
      do {
        let folder = try DirectoryDescriptor(path: "\(directories.tenants)/\(tenant)")
        let content = try StorageFileReader.read(
          folder.readFile("keyring", bytesMax: 1 << 30),
          tenant: tenant
        )
        if let torn = content.tornTail { violations.append(Violation("\(tenant): \(torn)")) }
        let cmks = try DirectoryDescriptor(path: "\(directories.cmks)/\(tenant)")
        for name in try cmks.names() {
          let bytes = try cmks.readFile(name, bytesMax: 1 << 20)
          _ = try LocalCMK.decode(bytes, tenant: tenant, id: CMKID(name), root: root)
        }
      } catch {
        violations.append(Violation("\(tenant): a file does not verify: \(error)"))
      }
    }
    return violations
  }
}

extension CampaignFleet.Member {
  /// Compares what is there with what must be.
  fileprivate mutating func settle(_ instance: KeyringClient, _ admin: KeyringClient) async -> [(
    change: PlannedChange, happened: Bool?
  )?] {
    do {
      let found = try await instance.everything()
      let names = Set(writers.flatMap(\.plan.names))
      if let ghost = found.keys.first(where: { !names.contains($0) }) {
        violations.append(Violation("a key is there that nobody stored: \(ghost)"))
      }
      _ = try await administrator.settle(admin)
      return writers.indices.map { writers[$0].settle(found) }
    } catch {
      violations.append(Violation("the tenant does not open: \(error)"))
      return []
    }
  }

  fileprivate mutating func repeatChanges(
    _ doubts: [(change: PlannedChange, happened: Bool?)?],
    _ instance: KeyringClient
  ) async {
    for (index, doubt) in doubts.enumerated() {
      if let doubt {
        await writers[index].repeatChange(doubt.change, happened: doubt.happened, instance)
      } else if let last = writers[index].model.last, last.id != nil {
        await writers[index].repeatChange(last, happened: true, instance)
      }
    }
  }
}
