internal import Dispatch
internal import KeyringCore
internal import Synchronization

/// Writes anchors behind the commits, at most a second late; one a process.
///
/// Few are written at a time, and of one tenant one at a time: a write that hangs holds its own tenant's anchor, and one of a fixed number of
/// threads.
public final class AnchorWriter: Sendable {
  private struct State {
    /// Not due yet: commits are gathered.
    var gathered: [TenantName: @Sendable () -> Void] = [:]
    /// Due, in this order.
    var due: [(tenant: TenantName, write: @Sendable () -> Void)] = []
    var underWay: Set<TenantName> = []
    var isScheduled = false

    /// The next write of a tenant that has none under way.
    mutating func next(_ writesMax: Int) -> (tenant: TenantName, write: @Sendable () -> Void)? {
      guard underWay.count < writesMax,
        let index = due.firstIndex(where: { !underWay.contains($0.tenant) })
      else { return nil }
      underWay.insert(due[index].tenant)
      return due.remove(at: index)
    }
  }

  private let queue = DispatchQueue(label: "keyring.anchors", attributes: .concurrent)
  private let state = Mutex(State())
  private let delayMilliseconds: Int
  private let writesMax: Int

  /// - Parameters:
  ///   - delayMilliseconds: how long commits are gathered before their anchors are written.
  ///   - writesMax: anchors written at a time, each on a thread.
  public init(delayMilliseconds: Int = 500, writesMax: Int = 8) {
    self.delayMilliseconds = delayMilliseconds
    self.writesMax = writesMax
  }

  func schedule(_ tenant: TenantName, _ write: @escaping @Sendable () -> Void) {
    let mustSchedule = state.withLock { state in
      state.gathered[tenant] = write
      defer { state.isScheduled = true }
      return !state.isScheduled
    }
    guard mustSchedule else { return }
    queue.asyncAfter(deadline: .now() + .milliseconds(delayMilliseconds)) { self.takeGathered() }
  }

  /// Drops what is not under way.
  func forget(_ tenant: TenantName) {
    state.withLock { state in
      state.gathered[tenant] = nil
      state.due.removeAll { $0.tenant == tenant }
    }
  }

  private func takeGathered() {
    state.withLock { state in
      state.isScheduled = false
      // One that is still due writes what is newest when its turn comes.
      let known = Set(state.due.map(\.tenant))
      for (tenant, write) in state.gathered where !known.contains(tenant) {
        state.due.append((tenant, write))
      }
      state.gathered = [:]
    }
    start()
  }

  private func start() {
    while let (tenant, write) = state.withLock({ $0.next(writesMax) }) {
      queue.async {
        write()
        self.state.withLock { _ = $0.underWay.remove(tenant) }
        self.start()
      }
    }
  }
}
