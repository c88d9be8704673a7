import Dispatch
import Foundation
import Glibc
import KeyringTestSupport
import Synchronization
import Testing

@testable import KeyringStorage

extension DiskCampaigns {
  /// Eight files of one ext4 that are appended to and synced at once share its transactions: where the disk fails under one, every other that was
  /// told that its bytes are on the disk has them there. (fdatasync(2) alone does not keep that.)
  @Suite struct SharedTransactionCampaign {
    @Test func whatASyncPromisedIsOnTheDisk() async throws {
      let name = "a transaction of many files fails, ext4"
      let rounds = Campaign.rounds(short: 20, long: 1500)
      let (done, lost) = try await Self.rounds(rounds, name) {
        SystemCalls().synchronize(.fdatasync, $0) == 0
      }
      #expect(lost.isEmpty, "seed \(Campaign.seed), round \(done): \(lost)")
      Campaign.report(name, ["rounds": done, "lost": lost.count])
    }

    /// About one round in 75 shows it: not for the short form.
    @Test(.enabled(if: Campaign.isLong)) func fdatasyncAloneLoses() async throws {
      let name = "a transaction of many files fails, ext4, fdatasync alone"
      let (done, lost) = try await Self.rounds(600, name) { fdatasync($0) == 0 }
      reportMutant(name, done, lost.first.map { Violation($0) })
    }

    /// Rounds on one file system until something is lost.
    private static func rounds(
      _ rounds: Int,
      _ name: String,
      _ synchronize: @escaping @Sendable (Int32) -> Bool
    ) async throws -> (done: Int, lost: [String]) {
      guard LoopFileSystem.isPossible() else { return (0, []) }
      var generator = Campaign.generator(name)
      return try await LoopFileSystem.use(.ext4, isBreakable: true) { fileSystem in
        var done = 0
        var failed = 0
        var lost: [String] = []
        while done < rounds, lost.isEmpty {
          done += 1
          let files = (0..<8).map { Appended(path: "\(fileSystem.path)/\($0)") }
          let isEnding = Ending()
          let appended = Task { await Self.append(to: files, until: isEnding, synchronize) }
          try await Task.sleep(for: .milliseconds(Int.random(in: 5..<65, using: &generator)))
          try fileSystem.breakDisk()
          try await Task.sleep(for: .microseconds(Int.random(in: 200..<50_000, using: &generator)))
          try fileSystem.healDisk()
          try await Task.sleep(for: .milliseconds(Int.random(in: 1..<60, using: &generator)))
          isEnding.end()
          await appended.value
          failed += files.count { $0.hasFailed }
          try await fileSystem.remount()
          lost = files.compactMap { $0.lost }
          for file in files where FileManager.default.fileExists(atPath: file.path) {
            try FileManager.default.removeItem(atPath: file.path)
          }
        }
        // The disk did fail, and syncs did notice.
        #expect(failed > 0)
        return (done, lost)
      }
    }

    private static func append(
      to files: [Appended],
      until isEnding: Ending,
      _ synchronize: @escaping @Sendable (Int32) -> Bool
    ) async {
      await withTaskGroup { group in
        for file in files {
          group.addTask {
            await withCheckedContinuation { done in
              DispatchQueue(label: file.path).async {
                file.append(until: isEnding, synchronize)
                done.resume()
              }
            }
          }
        }
      }
    }

    private final class Ending: Sendable {
      private let isOver = Atomic(false)
      func end() { isOver.store(true, ordering: .releasing) }
      var isSet: Bool { isOver.load(ordering: .acquiring) }
    }

    /// A file, and how much of it was said to be on the disk.
    private final class Appended: Sendable {
      let path: String
      private let promised = Atomic(0)
      private let failed = Atomic(false)
      init(path: String) { self.path = path }

      var hasFailed: Bool { failed.load(ordering: .acquiring) }

      /// What of the promise is not there, nil where all is.
      var lost: String? {
        var status = stat()
        // SAFETY: `status` lives for the call.
        let size = unsafe stat(path, &status) == 0 ? Int(status.st_size) : 0
        let promised = promised.load(ordering: .acquiring)
        return size < promised ? "\(path): \(promised) bytes were promised, \(size) are there" : nil
      }

      func append(until isEnding: Ending, _ synchronize: (Int32) -> Bool) {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(descriptor) }
        let batch = [UInt8](repeating: 1, count: 400)
        var size = 0
        while !isEnding.isSet {
          // SAFETY: the array has 400 bytes.
          let written = unsafe pwrite(descriptor, batch, batch.count, off_t(size))
          guard written == batch.count, synchronize(descriptor) else {
            failed.store(true, ordering: .releasing)
            return
          }
          size += batch.count
          promised.store(size, ordering: .releasing)
        }
      }
    }
  }
}
