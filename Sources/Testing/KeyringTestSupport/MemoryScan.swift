internal import Glibc

/// Looks for bytes in all memory of this process that can be written to.
public enum MemoryScan {
  /// How often the 32 bytes that `byte` gives stand in memory, the scan's own pages left out.
  ///
  /// The bytes come from a function, so that the needle is in no constant; they are written where the scan does not look.
  public static func count(_ byte: (Int) -> UInt8) -> Int {
    let chunkBytes = 1 << 20
    let own = unsafe mmap(
      nil,
      chunkBytes * 2 + 4096,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS,
      -1,
      0
    )
    guard let own = unsafe own, unsafe own != MAP_FAILED else {
      preconditionFailure("no memory for the scan")
    }
    defer { _ = unsafe munmap(own, chunkBytes * 2 + 4096) }
    let needle = unsafe own + chunkBytes * 2
    for index in 0..<32 { unsafe needle.storeBytes(of: byte(index), toByteOffset: index, as: UInt8.self) }
    let memory = unsafe open("/proc/self/mem", O_RDONLY | O_CLOEXEC)
    precondition(memory >= 0, "cannot read /proc/self/mem")
    defer { close(memory) }
    let mine = UInt(bitPattern: own)..<UInt(bitPattern: own) + UInt(chunkBytes * 2 + 4096)
    var hits = 0
    for region in writableRegions() where !region.overlaps(mine) {
      var at = region.lowerBound
      while at < region.upperBound {
        let wanted = min(chunkBytes + 31, Int(region.upperBound - at))
        let got = unsafe pread(memory, own, wanted, off_t(at))
        if got > 0 { unsafe hits += occurrences(of: needle, in: own, got) }
        at += UInt(chunkBytes)
      }
    }
    return hits
  }

  private static func occurrences(
    of needle: UnsafeMutableRawPointer,
    in chunk: UnsafeMutableRawPointer,
    _ count: Int
  ) -> Int {
    var hits = 0
    var offset = 0
    let first = unsafe Int32(needle.load(as: UInt8.self))
    while offset + 32 <= count, let hit = unsafe memchr(chunk + offset, first, count - offset - 31) {
      let isWhole = unsafe memcmp(hit, needle, 32) == 0
      hits += isWhole ? 1 : 0
      offset = unsafe chunk.distance(to: hit) + (isWhole ? 32 : 1)
    }
    return hits
  }

  private static func writableRegions() -> [Range<UInt>] {
    var text: [UInt8] = []
    let maps = unsafe open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(maps, $0.baseAddress, $0.count) }
      guard count > 0 else { break }
      text += buffer[..<count]
    }
    close(maps)
    return String(decoding: text, as: UTF8.self).split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      let ends = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
      return words[1].hasPrefix("rw") && ends.count == 2 ? ends[0]..<ends[1] : nil
    }
  }
}
