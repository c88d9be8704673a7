import Foundation
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Testing

@Suite struct SecretFileTests {
  let folder: TestDirectory
  init() throws { folder = try TestDirectory() }

  private func revealed(_ secret: Secret) -> String {
    unsafe secret.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
  }

  private func setMode(_ name: String, _ mode: Int) throws {
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: folder(name))
  }

  private func link(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(
      atPath: folder(name),
      withDestinationPath: folder(target)
    )
  }

  @Test func aSecretOfADirectoryIsReadWholeWithinItsBounds() throws {
    try folder.write("secret", "one\ntwo\n")
    try folder.write("empty", "")
    let directory = try DirectoryDescriptor(path: folder.path)
    #expect(try revealed(directory.readSecret("secret", bytesMax: 8)) == "one\ntwo\n")
    #expect(try directory.readSecret("empty", bytesMax: 8).count == 0)
    #expect(throws: FileError.unacceptable("\(folder("secret")) is larger than 7 bytes")) {
      try directory.readSecret("secret", bytesMax: 7)
    }
    #expect(throws: FileError.absent("\(folder("absent")) is not there")) {
      try directory.readSecret("absent", bytesMax: 8)
    }
  }

  @Test func aSecretThatOthersMayReadOrBehindALinkIsRefused() throws {
    try folder.write("secret", "one")
    try link("link", to: "secret")
    let directory = try DirectoryDescriptor(path: folder.path)
    let refused = #expect(throws: FileError.self) { try directory.readSecret("link", bytesMax: 8) }
    #expect(refused?.description.contains("link is not a plain file") == true)
    for mode in [0o640, 0o604, 0o620] {
      try setMode("secret", mode)
      for read in [
        { try directory.readSecret("secret", bytesMax: 8) }, { try SecretFile.read(folder("secret")) },
      ] {
        let refused = #expect(throws: FileError.self) { try read() }
        #expect(refused?.description.contains("may be used by others") == true)
      }
      #expect(try revealed(SecretFile.read(folder("secret"), requirePrivate: false)) == "one")
    }
  }

  @Test func whatThePlatformProvidesIsReadThroughLinksAndOfAnyMode() throws {
    // As Kubernetes mounts a token: token -> ..data/token, ..data -> a directory that is replaced.
    try FileManager.default.createDirectory(atPath: folder("..2026"), withIntermediateDirectories: false)
    try folder.write("..2026/token", "one")
    try setMode("..2026/token", 0o644)
    try link("..data", to: "..2026")
    try link("token", to: "..data/token")
    #expect(try revealed(SecretFile.readProvided(folder("token"))) == "one")
    #expect(throws: FileError.absent("\(folder("absent")) is not there")) {
      try SecretFile.readProvided(folder("absent"))
    }
    #expect(throws: FileError.unacceptable("\(folder("..2026")) is not a regular file")) {
      try SecretFile.readProvided(folder("..2026"))
    }
    try folder.write("long", String(repeating: "x", count: SecretFile.bytesMax + 1))
    #expect(throws: FileError.unacceptable("\(folder("long")) is larger than 65536 bytes")) {
      try SecretFile.readProvided(folder("long"))
    }
  }
}
