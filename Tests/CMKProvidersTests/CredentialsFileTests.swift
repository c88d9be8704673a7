import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

@Suite struct CredentialsFileTests {
  private let id = CredentialsFixture.accessKeyID
  private let secret = CredentialsFixture.secretAccessKey

  private func parse(_ text: String) throws(CMKError) -> AWSCredentials {
    let content: Secret
    do {
      content = try .testing(text)
    } catch {
      throw .unreachable("the test has no memory: \(error)")
    }
    return try CredentialsFile.parse(content, file: "acme/credentials")
  }

  @Test func twoOrThreeLinesAreCredentials() throws {
    for text in ["\(id)\n\(secret)", "\(id)\n\(secret)\n", "\(id)\r\n\(secret)\r\n"] {
      #expect(try parse(text).revealed == "\(id)|\(secret)||")
    }
    for text in ["\(id)\n\(secret)\nFwoG/token==", "\(id)\r\n\(secret)\r\nFwoG/token==\r\n"] {
      #expect(try parse(text).revealed == "\(id)|\(secret)|FwoG/token==|")
    }
    let longest = [128, 256, 8192].map { String(repeating: "A", count: $0) }
    #expect(try parse(longest.joined(separator: "\n")).revealed == longest.joined(separator: "|") + "|")
  }

  @Test(arguments: [
    ("empty", "", "0 lines"),
    ("one line", "ID\n", "1 lines"),
    ("a line too many", "ID\nSECRET\nTOKEN\nmore\n", "4 lines"),
    ("an empty third line", "ID\nSECRET\n\n", "credentials:3"),
    ("an empty second line", "ID\n\n", "credentials:2"),
    ("an empty line before", "\nID\nSECRET\n", "credentials:1"),
    ("a byte order mark", "\u{feff}ID\nSECRET\n", "credentials:1"),
    ("NUL", "ID\nSEC\0RET\n", "credentials:2"),
    ("a space behind the id", "ID \nSECRET\n", "credentials:1"),
    ("a space in the secret", "ID\nSEC RET\n", "credentials:2"),
    ("a space behind the secret", "ID\nSECRET \n", "credentials:2"),
    ("a carriage return in a line", "ID\nSEC\rRET\n", "credentials:2"),
    ("a carriage return at the end of the file", "ID\nSECRET\r", "credentials:2"),
    ("a tab in the token", "ID\nSECRET\nTO\tKEN\n", "credentials:3"),
    ("not ASCII", "ID\nSECRÉT\n", "credentials:2"),
    ("keys and values", "aws_access_key_id=ID\naws_secret_access_key=SECRET\n", "credentials:1"),
    ("a short id", "AKIA\nSECRET\n", "credentials:1"),
    ("a long id", "LONGID\nSECRET\n", "credentials:1"),
    ("a long secret", "ID\nLONGSECRET\n", "credentials:2"),
    ("a long token", "ID\nSECRET\nLONGTOKEN\n", "credentials:3"),
  ])
  func anythingElseIsRefusedByItsLine(_ what: String, _ text: String, _ place: String) async {
    let long = ["LONGID": 129, "LONGSECRET": 257, "LONGTOKEN": 8193]
    var content = text
    for (word, count) in long { content.replace(word, with: String(repeating: "x", count: count)) }
    if !text.contains("LONGID") { content.replace("ID", with: id, maxReplacements: 1) }
    let refusal = await noCredentials { () throws(CMKError) in try parse(content) }
    #expect(refusal.contains(place) && refusal.contains("acme/credentials"), "\(what): \(refusal)")
    #expect(!refusal.contains(id) && !refusal.contains("SEC") && !refusal.contains("xxx"), "\(refusal)")
  }

  @Test func aFileThatOthersMayReadALinkAndAnAbsentOneAreRefused() async throws {
    let fixture = try CredentialsFixture()
    try fixture.folder.write("credentials", "\(id)\n\(secret)\n")
    #expect(try await fixture.cache(fixture.file()).credentials().revealed == "\(id)|\(secret)||")
    try FileManager.default.createSymbolicLink(
      atPath: fixture.folder("link"),
      withDestinationPath: fixture.folder("credentials")
    )
    try fixture.folder.write("long", String(repeating: "x", count: CredentialsFile.bytesMax + 1))
    try fixture.setMode("credentials", 0o644)
    for (name, why) in [
      ("credentials", "may be used by others (mode 0644)"), ("link", "not a plain file"),
      ("absent", "is not there"), ("long", "larger than"),
    ] {
      let cache = try fixture.cache(fixture.file(name))
      let refusal = await noCredentials { () throws(CMKError) in try await cache.credentials() }
      #expect(
        refusal.hasPrefix("credentials: \(fixture.folder(name))") && refusal.contains(why),
        "\(refusal)"
      )
    }
  }
}
