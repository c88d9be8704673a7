import Foundation
import Glibc

/// The memory of a process, as the kernel shows it (proc_pid_smaps(5), proc_pid_mem(5)).
struct ProcessMemory {
  struct Mapping {
    let range: Range<UInt64>
    let name: String
    /// What cannot be written holds what the files of program and libraries hold.
    let isWritable: Bool
    /// VmFlags `lo`: never swapped.
    var isLocked = false
    /// VmFlags `dd`: in no core file.
    var isNotDumped = false
  }

  /// Bytes to look for, and what they are.
  struct Needle {
    let name: String
    let bytes: [UInt8]

    /// A secret's halves, raw, and as hexadecimal digits of either case: what a cut copy would still have.
    static func of(_ name: String, _ secret: [UInt8]) -> [Needle] {
      let halves = [("first", secret.prefix(16)), ("last", secret.suffix(16))]
      return halves.flatMap { half, bytes in
        let digits = bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
        return [
          Needle(name: "\(name), \(half) half", bytes: Array(bytes)),
          Needle(name: "\(name), \(half) half, hexadecimal", bytes: Array(digits.utf8)),
          Needle(name: "\(name), \(half) half, HEXADECIMAL", bytes: Array(digits.uppercased().utf8)),
        ]
      }
    }
  }

  struct Hit: CustomStringConvertible {
    let needle: String
    let address: UInt64
    let mapping: Mapping
    var description: String {
      "\(needle) at \(String(address, radix: 16)) in \(mapping.name)\(mapping.isLocked ? " (locked)" : "")"
    }
  }

  struct Scan {
    var hits: [Hit] = []
    var bytesRead = 0
    var mappings: [Mapping] = []
    var outsideLockedMemory: [Hit] { hits.filter { !$0.mapping.isLocked } }
  }

  struct Unreadable: Error { let what: String }

  let id: Int32

  /// All of a file whose size the kernel does not tell.
  static func text(_ path: String) throws -> String {
    guard let file = FileHandle(forReadingAtPath: path) else { throw Unreadable(what: path) }
    return String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
  }

  func mappings() throws -> [Mapping] {
    var found: [Mapping] = []
    for line in try Self.text("/proc/\(id)/smaps").split(separator: "\n") {
      if let match = line.firstMatch(of: /^([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+ *(.*)$/),
        let start = UInt64(match.1, radix: 16), let end = UInt64(match.2, radix: 16)
      {
        found.append(
          Mapping(
            range: start..<end,
            name: match.4.isEmpty ? "anonymous memory" : String(match.4),
            isWritable: match.3.hasPrefix("rw")
          )
        )
      } else if line.hasPrefix("VmFlags:"), let last = found.indices.last {
        let flags = line.split(separator: " ")
        found[last].isLocked = flags.contains("lo")
        found[last].isNotDumped = flags.contains("dd")
      }
    }
    guard !found.isEmpty else { throw Unreadable(what: "no mappings of process \(id)") }
    return found
  }

  /// Looks through everything that the process could write itself.
  func scan(_ needles: [Needle]) throws -> Scan {
    let descriptor = unsafe open("/proc/\(id)/mem", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Unreadable(what: "/proc/\(id)/mem") }
    defer { close(descriptor) }
    var scan = Scan()
    scan.mappings = try mappings()
    let overlap = (needles.map(\.bytes.count).max() ?? 1) - 1
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 << 20, alignment: 4096)
    defer {
      // The scan leaves no copy of what it looked at in the test's own memory.
      if let base = chunk.baseAddress { unsafe explicit_bzero(base, chunk.count) }
      unsafe chunk.deallocate()
    }
    for mapping in scan.mappings where mapping.isWritable {
      var address = mapping.range.lowerBound
      while address < mapping.range.upperBound {
        let wanted = Int(min(UInt64(chunk.count), mapping.range.upperBound - address))
        let count = unsafe pread(descriptor, chunk.baseAddress, wanted, off_t(address))
        if count <= 0 { break }  // the kernel's own pages, or gone meanwhile
        scan.bytesRead += count
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: chunk[..<count])
        for needle in needles {
          for offset in unsafe Self.places(of: needle.bytes, in: bytes) {
            scan.hits.append(Hit(needle: needle.name, address: address + UInt64(offset), mapping: mapping))
          }
        }
        address += UInt64(count > overlap && count == chunk.count ? count - overlap : count)
      }
    }
    return scan
  }

  /// memmem(3), which Swift's Glibc module leaves out.
  private static let find: Find = {
    let symbol = unsafe dlsym(nil, "memmem")
    guard let symbol = unsafe symbol else { preconditionFailure("glibc has memmem") }
    // SAFETY: the type is memmem's.
    return unsafe Find(call: unsafeBitCast(symbol, to: Find.Function.self))
  }()

  @safe
  private struct Find: Sendable {
    typealias Function =
      @convention(c) @Sendable (UnsafeRawPointer, Int, UnsafeRawPointer, Int) -> UnsafeRawPointer?
    let call: Function
  }

  private static func places(of needle: [UInt8], in bytes: UnsafeRawBufferPointer) -> [Int] {
    guard let base = bytes.baseAddress else { return [] }
    var found: [Int] = []
    var from = 0
    // SAFETY: every pointer lies within `bytes`, with the needle's length left behind it.
    while from + needle.count <= bytes.count,
      let place = unsafe find.call(base + from, bytes.count - from, needle, needle.count)
    {
      let offset = unsafe base.distance(to: place)
      found.append(offset)
      from = offset + 1
    }
    return found
  }
}
