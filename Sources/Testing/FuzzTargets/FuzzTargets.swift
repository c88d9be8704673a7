internal import Glibc

// Parsers of what comes from outside, under libFuzzer: `Tests/run --fuzz` builds this module with -sanitize=fuzzer -DFUZZING and runs each target.
// An ordinary build has no libFuzzer: it writes the seeds, and runs single inputs again.
//
//     FuzzTargets TARGET --seeds FOLDER     writes the target's seeds
//     FuzzTargets TARGET FILE...            runs the target on each file; a violated property stops the process

/// The program.
@main
enum FuzzTargets {
  static let target: FuzzTarget = {
    guard CommandLine.arguments.count > 1, let target = FuzzTarget(rawValue: CommandLine.arguments[1]) else {
      let names = FuzzTarget.allCases.map(\.rawValue).joined(separator: ", ")
      print("usage: FuzzTargets TARGET --seeds FOLDER | FILE...   (TARGET: \(names))")
      exit(2)
    }
    return target
  }()

  static func main() throws {
    let arguments = CommandLine.arguments
    if arguments.count == 4, arguments[2] == "--seeds" {
      for (index, seed) in try target.seeds().enumerated() {
        try write(seed, "\(arguments[3])/seed-\(index)")
      }
      return
    }
    #if FUZZING
      exit(fuzz())
    #else
      for path in arguments.dropFirst(2) { run(try read(path)) }
    #endif
  }

  private static func run(_ bytes: [UInt8]) { _ = unsafe bytes.withUnsafeBytes { unsafe target.run($0) } }

  private struct FileFailure: Error, CustomStringConvertible {
    let description: String
  }

  private static func write(_ bytes: [UInt8], _ path: String) throws {
    guard let file = unsafe fopen(path, "wb") else { throw FileFailure(description: "cannot write \(path)") }
    let count = unsafe fwrite(bytes, 1, bytes.count, file)
    guard unsafe fclose(file) == 0, count == bytes.count else {
      throw FileFailure(description: "cannot write \(path)")
    }
  }

  private static func read(_ path: String) throws -> [UInt8] {
    guard let file = unsafe fopen(path, "rb") else { throw FileFailure(description: "cannot read \(path)") }
    defer { _ = unsafe fclose(file) }
    var bytes: [UInt8] = []
    var byte = unsafe fgetc(file)
    while byte != EOF {
      bytes.append(UInt8(truncatingIfNeeded: byte))
      byte = unsafe fgetc(file)
    }
    return bytes
  }
}

#if FUZZING
  /// libFuzzer's own entry (FuzzerInterface.h), which leaves `main` to the program.
  @_silgen_name("LLVMFuzzerRunDriver")
  private func runDriver(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
  ) -> Int32

  /// Hands all arguments but the target's name to libFuzzer.
  private func fuzz() -> Int32 {
    var arguments = unsafe UnsafeMutablePointer(CommandLine.unsafeArgv)
    unsafe arguments[1] = arguments[0]
    unsafe arguments += 1
    var count = CommandLine.argc - 1
    var pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe arguments
    return unsafe runDriver(&count, &pointer) { bytes, count in
      unsafe FuzzTargets.target.run(UnsafeRawBufferPointer(start: bytes, count: count))
      return 0
    }
  }
#endif
