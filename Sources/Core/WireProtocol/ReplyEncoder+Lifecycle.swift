internal import MessageEncoding

extension ReplyEncoder {
  static func write(_ instance: InstanceEntry, to message: inout MessageWriter) {
    message.bytes(1, instance.name.utf8)
    message.bytes(2, instance.source.utf8)
    message.number(3, UInt64(instance.connections))
    message.number(4, instance.notBefore)
    for permission in instance.permissions { message.element(5, permission.utf8) }
    for scope in instance.scopes { message.element(6, scope.utf8) }
  }

  static func write(_ files: LoadedFiles, to message: inout MessageWriter) {
    message.bytes(1, files.name.utf8)
    message.number(2, files.loadedMilliseconds)
    message.number(3, files.ends)
    message.bytes(4, files.failure.utf8)
  }

  static func write(_ report: ReloadReport, to message: inout MessageWriter) {
    for files in report.files { message.message(1) { write(files, to: &$0) } }
    message.number(2, UInt64(report.tenantsReloaded))
    for failure in report.tenantFailures {
      message.message(3) { inner in
        inner.bytes(1, failure.tenant.utf8)
        inner.bytes(2, failure.failure.utf8)
      }
    }
  }
}
