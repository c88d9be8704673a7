import TenantRegistry
import Testing

@testable import KeyringService

@Suite struct TenantRoomTests {
  private static let second: UInt64 = 1_000_000_000

  private func room(_ lines: String, descriptorsMax: Int = 65_536) throws -> TenantRoom {
    let yaml = """
      trust_domain: a.example
      tls: {certificate: a, key: b, client_ca: c}
      tenants_directory: t
      anchor_directory: a
      secure_memory_bytes: 65536
      \(lines)

      """
    let configuration = try ServiceConfiguration(yaml: yaml, file: "test.yaml", directory: "/")
    return TenantRoom(configuration, descriptorsMax: descriptorsMax)
  }

  private func closing(_ room: TenantRoom, _ idle: [UInt64], open: Int? = nil, _ arenaBytesInUse: Int = 0)
    -> [Int]
  {
    room.closing(
      idle: idle.map { $0 * Self.second },
      open: open ?? idle.count,
      arenaBytesInUse: arenaBytesInUse
    )
    .sorted()
  }

  @Test func whoIsNotUsedForLongCloses() throws {
    let room = try room("idle_close: 1m")
    #expect(closing(room, [59, 60, 0, 3600]) == [1, 3])
    #expect(closing(room, []) == [])
  }

  @Test func whoIsOneTooManyClosesTheLeastRecentlyUsedFirst() throws {
    let room = try room("limits: {open_tenants: 3}")
    #expect(closing(room, [10, 40, 20], open: 3) == [])
    #expect(closing(room, [10, 40, 20], open: 4) == [1, 2], "one too many, and one more")
    #expect(closing(room, [10, 4, 3], open: 4) == [0], "nobody in use is closed")
    #expect(closing(room, [1, 2, 4], open: 40) == [])
  }

  @Test func lockedMemoryThatIsHalfFullMakesRoom() throws {
    let room = try room("idle_close: 1h")
    #expect(closing(room, [10, 40, 20], 32_768) == [])
    #expect(closing(room, [10, 40, 20], 32_769) == [1])
    #expect(closing(room, Array(repeating: 10, count: 160), 65_536).count == 10)
  }

  @Test func descriptorsBoundTheNumberOfOpenTenants() throws {
    #expect(try room("limits: {connections: 1000}", descriptorsMax: 65_536).openMax == 10_000)
    #expect(try room("limits: {connections: 1000}", descriptorsMax: 4256).openMax == 1000)
    #expect(try room("limits: {connections: 1000}", descriptorsMax: 100).openMax == 1)
  }
}
