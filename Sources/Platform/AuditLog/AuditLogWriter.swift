internal import Dispatch
internal import Synchronization

/// One audit log: takes entries into a bounded queue, and has them written in batches by threads of the file system that they go to.
///
/// Whoever notes an entry waits for nothing. Where the queue is full or the disk fails, entries are dropped and counted, and a `gap` line in
/// their place says how many they were. Whoever writes one waits until it is durable, or cannot be.
public final class AuditLogWriter: Sendable {
  /// What became of it so far.
  public struct Counts: Sendable, Equatable {
    /// Entries that are durable.
    public var written: UInt64 = 0
    /// Entries that are missing in the log, and said to be or to be said so.
    public var dropped: UInt64 = 0
    /// Why the disk took none, the last time that it did not; empty since it did again.
    public var lastFailure = ""
  }

  private typealias Waiter = CheckedContinuation<Result<UInt64, AuditError>, Never>

  private enum Queued: Sendable {
    case record(AuditRecord, waiter: UInt64?)
    case gap(UInt64)
  }

  private struct State {
    var queue: [Queued] = []
    var queuedBytes = 0
    var waiters: [UInt64: (continuation: Waiter, since: UInt64)] = [:]
    var nextWaiter: UInt64 = 1
    var isWriting = false
    var isGathering = false
    var isSweeping = false
    var isTicking = false
    /// The disk failed, and is tried again in a while: only those who wait have it tried before.
    var isRetrying = false
    var isSigningDue = false
    /// The newest head that is to be written, and whether one is being written.
    var head: AuditHead?
    var isWritingHead = false
    /// Those who close the log wait for its head.
    var waitingForHead: [CheckedContinuation<Void, Never>] = []
    var closing: [CheckedContinuation<Void, Never>] = []
    var isClosed = false
    var counts = Counts()
  }

  /// Names it, and its files.
  public let name: String
  private let environment: AuditEnvironment
  private let disk: Mutex<LogOnDisk>
  private let state = Mutex(State())

  init(name: String, environment: AuditEnvironment, disk: LogOnDisk) {
    self.name = name
    self.environment = environment
    self.disk = Mutex(disk)
  }

  /// What became of it so far.
  public var counts: Counts { state.withLock { $0.counts } }

  // MARK: Entries

  /// Queues an entry; drops it where the queue is full.
  public func note(_ record: AuditRecord) {
    let isDue = state.withLock { state in
      enqueue(record, waiter: nil, &state)
      guard !state.isWriting, !state.isRetrying, !state.isClosed else { return false }
      if state.queue.count >= environment.limits.batchItems { return true }
      gather(&state)
      return false
    }
    if isDue { start() }
  }

  /// Writes an entry; it is durable when this returns its serial.
  ///
  /// - Returns: why not, after `AuditLimits.patience` at the latest.
  public func write(_ record: AuditRecord) async -> Result<UInt64, AuditError> {
    await withCheckedContinuation { (continuation: Waiter) in
      let refusal = state.withLock { state -> AuditError? in
        let id = state.nextWaiter
        guard enqueue(record, waiter: id, &state) else {
          return .unavailable("too many entries wait for the disk")
        }
        state.nextWaiter += 1
        state.waiters[id] = (continuation, environment.monotonicMilliseconds())
        sweep(&state)
        return nil
      }
      if let refusal {
        continuation.resume(returning: .failure(refusal))
      } else {
        start()
      }
    }
  }

  @discardableResult
  private func enqueue(_ record: AuditRecord, waiter: UInt64?, _ state: inout State) -> Bool {
    let limits = environment.limits
    guard !state.isClosed, state.queue.count < limits.queueItems, state.queuedBytes < limits.queueBytes else {
      addGap(1, &state.queue)
      state.counts.dropped += 1
      return false
    }
    state.queue.append(.record(record, waiter: waiter))
    state.queuedBytes += record.cost
    return true
  }

  private func addGap(_ missing: UInt64, _ queue: inout [Queued]) {
    if case .gap(let before) = queue.last {
      queue[queue.count - 1] = .gap(before + missing)
    } else {
      queue.append(.gap(missing))
    }
  }

  // MARK: When to write

  private func gather(_ state: inout State) {
    guard !state.isGathering else { return }
    state.isGathering = true
    environment.after(environment.limits.gatherMilliseconds) {
      self.state.withLock { $0.isGathering = false }
      self.start()
    }
  }

  /// Has a thread write what is queued, unless one does.
  private func start() {
    let mustStart = state.withLock { state in
      let isNeeded = !state.queue.isEmpty || state.isSigningDue || !state.closing.isEmpty
      // Closed: a timer that was set before must not touch what may be another server's by now.
      guard isNeeded, !state.isWriting, !state.isClosed else { return false }
      state.isWriting = true
      return true
    }
    if mustStart { environment.run { self.writeBatch() } }
  }

  /// Lines are signed within a while after they came.
  private func tick(_ state: inout State) {
    guard !state.isTicking, !state.isClosed else { return }
    state.isTicking = true
    environment.after(environment.limits.checkpointMilliseconds) {
      self.state.withLock { state in
        state.isTicking = false
        state.isSigningDue = true
      }
      self.start()
    }
  }

  /// Those who wait for a disk that hangs are told so.
  private func sweep(_ state: inout State) {
    guard !state.isSweeping else { return }
    state.isSweeping = true
    environment.after(environment.limits.patienceMilliseconds / 4 + 1) {
      let now = self.environment.monotonicMilliseconds()
      let late = self.state.withLock { state in
        state.isSweeping = false
        let late = state.waiters.filter {
          now - $0.value.since >= self.environment.limits.patienceMilliseconds
        }
        for id in late.keys { state.waiters[id] = nil }
        if !state.waiters.isEmpty { self.sweep(&state) }
        return late.values.map(\.continuation)
      }
      for waiter in late {
        waiter.resume(returning: .failure(.unavailable("the disk of the audit log does not answer")))
      }
    }
  }

  // MARK: Writing, on a thread of the disk

  private struct Batch {
    var items: [Queued] = []
    var mustSign = false
    var isLast = false
  }

  private func takeBatch() -> Batch {
    state.withLock { state in
      var batch = Batch()
      let count = min(state.queue.count, environment.limits.batchItems)
      batch.items = Array(state.queue[..<count])
      state.queue.removeSubrange(..<count)
      for case .record(let record, _) in batch.items { state.queuedBytes -= record.cost }
      batch.isLast = state.queue.isEmpty && !state.closing.isEmpty
      batch.mustSign = state.isSigningDue || batch.isLast
      state.isSigningDue = false
      return batch
    }
  }

  private func writeBatch() {
    let batch = takeBatch()
    let milliseconds = environment.unixMilliseconds()
    let items = batch.items.map { item -> LogOnDisk.Item in
      switch item {
      case .record(let record, _): .record(record)
      case .gap(let missing): .gap(missing)
      }
    }
    // What was never written to has no file, and needs none.
    let isNothing = items.isEmpty && counts.written == 0
    let result = disk.withLock { disk -> Result<LogOnDisk.Appended, AuditError> in
      if isNothing { return .success(LogOnDisk.Appended()) }
      return Result { () throws(AuditError) in
        let appended = try disk.append(items, mustSign: batch.mustSign, milliseconds: milliseconds)
        if items.isEmpty { disk.close() }  // idle
        return appended
      }
    }
    switch result {
    case .success(let appended): succeeded(batch, appended)
    case .failure(let error): failed(batch, error)
    }
  }

  private func succeeded(_ batch: Batch, _ appended: LogOnDisk.Appended) {
    var answered: [(Waiter, UInt64)] = []
    let (goesOn, closing) = state.withLock { state -> (Bool, [CheckedContinuation<Void, Never>]) in
      for (item, serial) in zip(batch.items, appended.serials) {
        guard case .record(_, let waiter) = item else { continue }
        state.counts.written += 1
        if let waiter, let (continuation, _) = state.waiters.removeValue(forKey: waiter) {
          answered.append((continuation, serial))
        }
      }
      state.counts.lastFailure = ""
      if let head = appended.head { state.head = head }
      if !batch.items.isEmpty { tick(&state) }  // to sign it, or to let the file go
      if !state.queue.isEmpty || (!state.closing.isEmpty && !batch.isLast) { return (true, []) }
      state.isWriting = false
      guard batch.isLast else { return (false, []) }
      state.isClosed = true
      defer { state.closing = [] }
      return (false, state.closing)
    }
    for (waiter, serial) in answered { waiter.resume(returning: .success(serial)) }
    environment.export(appended.lines)
    // Not in a loop: other logs have their turn.
    if goesOn { environment.run { self.writeBatch() } }
    writeHead(then: closing)
  }

  private func failed(_ batch: Batch, _ error: AuditError) {
    var refused: [Waiter] = []
    let (closing, isNew, isWaitedFor) = state.withLock {
      state -> ([CheckedContinuation<Void, Never>], Bool, Bool) in
      let isNew = state.counts.lastFailure.isEmpty
      state.counts.lastFailure = error.description
      var kept: [Queued] = []
      for item in batch.items {
        switch item {
        case .gap(let missing): addGap(missing, &kept)
        case .record(_, .some(let waiter)):
          addGap(1, &kept)
          state.counts.dropped += 1
          if let (continuation, _) = state.waiters.removeValue(forKey: waiter) {
            refused.append(continuation)
          }
        case .record(let record, nil):
          kept.append(item)
          state.queuedBytes += record.cost
        }
      }
      state.queue = kept + state.queue
      state.isSigningDue = state.isSigningDue || batch.mustSign
      state.isWriting = false
      guard state.closing.isEmpty else {
        state.isClosed = true
        defer { state.closing = [] }
        return (state.closing, isNew, false)
      }
      return ([], isNew, !state.waiters.isEmpty)
    }
    if isNew { environment.notice("the audit log '\(name)' cannot be written: \(error)") }
    for waiter in refused { waiter.resume(returning: .failure(error)) }
    for waiter in closing { waiter.resume() }
    guard closing.isEmpty else { return }
    if isWaitedFor { start() }
    retry()
  }

  /// Has the disk tried again in a while: once, however often it fails until then.
  private func retry() {
    let isFirst = state.withLock { state in
      defer { state.isRetrying = true }
      return !state.isRetrying
    }
    guard isFirst else { return }
    environment.after(environment.limits.retryMilliseconds) {
      self.state.withLock { $0.isRetrying = false }
      self.start()
    }
  }

  // MARK: The head

  /// Writes the newest head, behind the lines that it names, on a thread of its own disk.
  private func writeHead(then closing: [CheckedContinuation<Void, Never>] = []) {
    let (head, done) = state.withLock { state -> (AuditHead?, [CheckedContinuation<Void, Never>]) in
      state.waitingForHead += closing
      guard !state.isWritingHead else { return (nil, []) }
      if let head = state.head {
        state.isWritingHead = true
        state.head = nil
        return (head, [])
      }
      defer { state.waitingForHead = [] }
      return (nil, state.waitingForHead)
    }
    for waiter in done { waiter.resume() }
    guard let head else { return }
    environment.runForHeads {
      do throws(AuditError) {
        try self.environment.write(head)
      } catch {
        self.environment.notice("the head of the audit log '\(self.name)' cannot be written: \(error)")
      }
      self.state.withLock { $0.isWritingHead = false }
      self.writeHead()
    }
  }

  /// Writes and signs what is queued, and takes no more. Where the disk fails, it is given up at once.
  func close() async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      let isClosed = state.withLock { state in
        if !state.isClosed { state.closing.append(continuation) }
        return state.isClosed
      }
      if isClosed { continuation.resume() } else { start() }
    }
  }
}
