internal import ConfigurationFiles
internal import TenantRegistry

extension Tenant {
  /// `tenant.yaml` and `persisted.json`, as they are at one moment.
  func configurationBytes() async throws(ServiceError) -> (yaml: [UInt8], persisted: [UInt8]?) {
    let (files, device) = (self.files, self.device)
    let read = await settingsTurns.run {
      await resources.flushPools.value(device: device) {
        Result { () throws(ConfigurationError) in try files.configurationBytes() }
      }
    }
    do {
      return try read.get()
    } catch {
      throw .configuration("\(error)")
    }
  }
}
