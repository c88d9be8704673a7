public import KeyringCore
internal import KeyringStorage

extension LocalProvider {
  /// The CMKs that there are, in whatever state.
  ///
  /// - Throws: `CMKError.unreachable` where the disk does not tell.
  public func ids() async throws(CMKError) -> [CMKID] {
    try await onQueue { provider throws(CMKError) in
      do {
        return try provider.parent.directory(provider.tenant.text).names().map { try CMKID($0) }
          .filter { LocalCMK.isID($0) }
      } catch FileError.absent {
        return []
      } catch {
        throw .unreachable("the CMK directory cannot be read: \(error)")
      }
    }
  }

  /// Destroys all CMKs of the tenant, whatever their state, at once and for good: what they wrapped opens nowhere but from a backup that has them
  /// in it. Durable when it returns; the same call goes on where one ended. This provider gives none out any more, also where it fails.
  ///
  /// - Throws: `CMKError.outcomeUnknown`: some may be there still.
  public func destroyAll() async throws(CMKError) {
    try await onQueue { provider throws(CMKError) in
      provider.end()
      do {
        try provider.parent.shredDirectory(provider.tenant.text)
      } catch {
        throw .outcomeUnknown("not all CMKs are destroyed: do the same again: \(error)")
      }
    }
  }
}
