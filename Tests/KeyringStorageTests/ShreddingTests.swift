import Foundation
import KeyringTestSupport
import Synchronization
import Testing

@testable import KeyringStorage

@Suite struct ShreddingTests {
  private let folder: TestDirectory

  init() throws {
    folder = try TestDirectory()
    try FileManager.default.createDirectory(
      atPath: folder("doomed"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
    try FileManager.default.createDirectory(atPath: folder("links"), withIntermediateDirectories: false)
  }

  /// What a file's blocks hold is seen through a second name for it.
  private func put(_ name: String, _ bytes: Int) throws {
    try Data(repeating: 0xa5, count: bytes).write(to: URL(filePath: folder("doomed/\(name)")))
    try FileManager.default.linkItem(atPath: folder("doomed/\(name)"), toPath: folder("links/\(name)"))
  }

  private func isZero(_ name: String) throws -> Bool {
    try Data(contentsOf: URL(filePath: folder("links/\(name)"))).allSatisfy { $0 == 0 }
  }

  private let sizes = [0, 1, 4096, 65_535, 65_536, 65_537, 200_000]

  @Test func whatAFileHeldIsOverwrittenBeforeItsNameGoes() throws {
    let directory = try DirectoryDescriptor(path: folder("doomed"))
    for size in sizes {
      try put("\(size)", size)
      try directory.shred("\(size)")
      #expect(try isZero("\(size)"))
      #expect(try Data(contentsOf: URL(filePath: folder("links/\(size)"))).count == size)
    }
    #expect(try directory.names() == [])
    try directory.shred("not there")
  }

  @Test func aLinkIsRemovedAndWhatItNamesStays() throws {
    try Data("mine".utf8).write(to: URL(filePath: folder("links/other")))
    try FileManager.default.createSymbolicLink(
      atPath: folder("doomed/link"),
      withDestinationPath: folder("links/other")
    )
    try DirectoryDescriptor(path: folder("doomed")).shred("link")
    #expect(try Data(contentsOf: URL(filePath: folder("links/other"))) == Data("mine".utf8))
    #expect(try DirectoryDescriptor(path: folder("doomed")).names() == [])
  }

  @Test func aDirectoryGoesWithAllItsFiles() throws {
    for size in sizes { try put("\(size)", size) }
    let above = try DirectoryDescriptor(path: folder.path)
    try above.shredDirectory("doomed")
    #expect(try above.names() == ["links"])
    for size in sizes { #expect(try isZero("\(size)")) }
    try above.shredDirectory("doomed")
  }

  @Test func aDirectoryInItIsLeftAndSaid() throws {
    try put("1", 1)
    try FileManager.default.createDirectory(atPath: folder("doomed/kept"), withIntermediateDirectories: false)
    let above = try DirectoryDescriptor(path: folder.path)
    #expect(throws: FileError.self) { try above.shredDirectory("doomed") }
    #expect(try above.directory("doomed").names() == ["kept"])
  }

  /// Whatever call fails, the same again finishes it; and no file's name went before its content.
  @Test func afterAFailureTheSameAgainFinishesIt() throws {
    let count = Mutex(0)
    let counting = SystemCalls { _ in
      count.withLock { $0 += 1 }
      return .proceed
    }
    for size in sizes { try put("\(size)", size) }
    try DirectoryDescriptor(path: folder.path, requirePrivate: false, calls: counting).shredDirectory(
      "doomed"
    )
    let all = count.withLock { $0 }
    #expect(all > 40)
    for failing in 0..<all {
      let fixture = try ShreddingTests()
      for size in sizes { try fixture.put("\(size)", size) }
      let made = Mutex(0)
      let calls = SystemCalls { _ in
        made.withLock { made in
          defer { made += 1 }
          return made == failing ? .fail(EIO) : .proceed
        }
      }
      var isDone = false
      do {
        try DirectoryDescriptor(path: fixture.folder.path, requirePrivate: false, calls: calls)
          .shredDirectory("doomed")
        isDone = true
      } catch {
        isDone = false
      }
      for size in sizes
      where !FileManager.default.fileExists(atPath: fixture.folder("doomed/\(size)")) {
        #expect(try fixture.isZero("\(size)"), "call \(failing)")
      }
      #expect(!isDone, "call \(failing) failed and nobody was told")
      try DirectoryDescriptor(path: fixture.folder.path, requirePrivate: false).shredDirectory("doomed")
      #expect(!FileManager.default.fileExists(atPath: fixture.folder("doomed")))
    }
  }
}
