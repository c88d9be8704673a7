internal import CLinux
internal import Glibc
internal import Synchronization

/// Where syslog listens.
public enum SyslogAddress: Sendable, Equatable {
  /// A Unix datagram socket, as `/dev/log`.
  case unix(path: String)
  /// UDP, to an IP address in digits.
  case udp(host: String, port: UInt16)
}

/// Sends lines to syslog (RFC 5424, one a datagram, RFC 5426), waits for nothing, and counts what was not taken.
final class SyslogSink: Sendable {
  private struct State {
    var socket: Int32 = -1
    var triedAt: time_t = 0
    var dropped: UInt64 = 0
  }

  private let address: SyslogAddress
  private let hostName: String
  private let process = getpid()
  private let state = Mutex(State())

  /// Facility 13 (log audit), severity 6 (informational): RFC 5424, section 6.2.1.
  static let priority = 13 * 8 + 6

  init(_ address: SyslogAddress) {
    self.address = address
    var name = [CChar](repeating: 0, count: 256)
    // SAFETY: the last byte stays 0, whatever the call writes.
    let isKnown = unsafe gethostname(&name, name.count - 1) == 0
    let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let isPlain = text.utf8.allSatisfy { (0x21...0x7e).contains($0) }
    hostName = isKnown && isPlain && !text.isEmpty ? text : "-"
  }

  deinit { state.withLock { if $0.socket >= 0 { _ = Glibc.close($0.socket) } } }

  var dropped: UInt64 { state.withLock { $0.dropped } }

  /// A message with `line`, which is ASCII, as its text; its time is the line's.
  static func message(_ line: ArraySlice<UInt8>, hostName: String, process: Int32) -> [UInt8] {
    let time = AuditLine.parse(line)?.header.time ?? "-"
    return Array("<\(priority)>1 \(time) \(hostName) keyringd \(process) audit - ".utf8) + line
  }

  func send(_ line: ArraySlice<UInt8>) {
    let message = Self.message(line, hostName: hostName, process: process)
    state.withLock { state in
      if state.socket < 0, !connect(&state) { return state.dropped += 1 }
      // SAFETY: the array lives for the call.
      let sent = unsafe keyring_datagram_send(state.socket, message, message.count)
      if sent == message.count { return }
      state.dropped += 1
      // Too long, or too many at once: the socket is good. Else the listener went, and another may come.
      guard sent < 0, ![EAGAIN, ENOBUFS, EMSGSIZE, EINTR].contains(errno) else { return }
      _ = Glibc.close(state.socket)  // nothing was buffered in it
      state.socket = -1
    }
  }

  /// At most once a second.
  private func connect(_ state: inout State) -> Bool {
    let now = time(nil)
    guard now != state.triedAt else { return false }
    state.triedAt = now
    state.socket =
      switch address {
      case .unix(let path): unsafe keyring_datagram_unix(path)
      case .udp(let host, let port): unsafe keyring_datagram_udp(host, port)
      }
    return state.socket >= 0
  }
}
