internal import KeyringCore
internal import MessageEncoding

extension ReplyEncoder {
  static func write(_ result: BackupResult, to message: inout MessageWriter) {
    switch result {
    case .begun(let id, let bytes, let digest, let summary):
      message.message(78) { inner in
        inner.bytes(1, id.bytes)
        inner.number(2, bytes)
        inner.bytes(3, digest.bytes)
        inner.message(4) { write(summary, to: &$0) }
      }
    case .data(let bytes): message.message(79) { $0.bytes(1, bytes) }
    case .ended: message.message(80) { _ in }
    }
  }

  static func write(_ result: RestoreResult, to message: inout MessageWriter) {
    switch result {
    case .begun(let id): message.message(81) { $0.bytes(1, id.bytes) }
    case .written: message.message(82) { _ in }
    case .ended(let report):
      message.message(83) { inner in
        inner.message(1) { write(report.summary, to: &$0) }
        for id in report.cmksMade { inner.element(2, id.utf8) }
        inner.number(3, report.replacedSequence)
        inner.number(4, report.isDryRun ? 1 : 0)
        for notice in report.notices { inner.element(5, notice.utf8) }
      }
    }
  }

  private static func write(_ summary: BackupSummary, to message: inout MessageWriter) {
    message.bytes(1, summary.keyringID.utf8)
    message.number(2, summary.sequence)
    message.bytes(3, summary.digest.utf8)
    message.number(4, summary.keys)
    message.number(5, summary.records)
    for id in summary.cmksNeeded { message.element(6, id.utf8) }
    for id in summary.cmksIncluded { message.element(7, id.utf8) }
    for id in summary.unprovedWrappingKeys { message.element(8, id.utf8) }
  }
}
