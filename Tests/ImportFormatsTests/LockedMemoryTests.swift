import Cryptography
import ImportFormats
import KeyringTestSupport
import SecureMemory
import Testing

/// The test process's own memory is what is looked through: in a process of its own, whose end is watched.
@Suite struct LockedMemoryTests {
  /// A key of a file of either format: none of its bytes stay behind once it is let go, not even on the way there.
  @Test func noKeyOfAFileIsLeftInMemory() async {
    await #expect(processExitsWith: .success) {
      guard SecureHeap.initialize(bytes: 1 << 22) != .unavailable else { finish(["no arena"]) }
      var failures: [String] = []
      let digits = { (index: Int) -> UInt8 in
        let nibble = marked(index / 2) >> (index % 2 == 0 ? 4 : 0) & 15
        return nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10
      }
      do {
        for isPlugin in [false, true] {
          try read(isPlugin: isPlugin)
          let hits = MemoryScan.count(marked) + MemoryScan.count(digits)
          if hits > 0 { failures.append("\(hits) copies of a key are left after a file, plugin \(isPlugin)") }
        }
      } catch {
        failures.append("\(error)")
      }
      finish(failures)
    }
  }
}

/// Reads a file with one marked key, made in locked memory byte by byte, and lets it go.
private func read(isPlugin: Bool) throws {
  let obfuscation = Array("*305=Ljt0*!@$Hnm(*-9-w;:".utf8)
  let content: Secret
  if isPlugin {
    let head: [UInt8] = [80, 1, 3, 0, 32].flatMap { [$0, 0, 0, 0, 0, 0, 0, 0] } + Array("kAES".utf8)
    content = try unsafe Secret(count: 24 + 80 + 35) { room in
      unsafe room.copyBytes(from: Array("Keyring file version:2.0".utf8) + head)
      for index in 0..<32 { unsafe room[24 + 44 + index] = marked(index) ^ obfuscation[index % 24] }
      let digest = unsafe digestOf(UnsafeRawBufferPointer(rebasing: room[24..<104]))
      let tail = Array("EOF".utf8) + digest
      for index in tail.indices { unsafe room[104 + index] = tail[index] }
    }
  } else {
    let head = Array(
      #"{"version":"1.0","elements":[{"user":"","data_id":"k","data_type":"AES","data":""#.utf8
    )
    let tail = Array(#"","extension":[]}]}"#.utf8)
    content = try unsafe Secret(count: head.count + 64 + tail.count) { room in
      unsafe room.copyBytes(from: head)
      for index in 0..<64 {
        let nibble = marked(index / 2) >> (index % 2 == 0 ? 4 : 0) & 15
        unsafe room[head.count + index] = nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10
      }
      for index in tail.indices { unsafe room[head.count + 64 + index] = tail[index] }
    }
  }
  let file = try KeyFile(content: content)
  guard file.keys.count == 1, file.keys[0].value.count == 32 else { throw UnexpectedReply() }
}

private func digestOf(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
  do {
    let hash = try SHA256()
    try unsafe hash.update(bytes)
    return try hash.finish().bytes
  } catch {
    return []  // the file is then refused, and the test fails
  }
}
