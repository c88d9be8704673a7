import KeyringTestSupport
import Foundation

extension Compare {
  /// rotate-keys of a large keyring of the local provider and of AWS, by turns, in one server.
  func awsRotation(_ bench: Bench) async throws {
    let kms = try await ScriptedKMS()
    let tenant = AWSTenants("aws", 1)
    bench.startAnew()
    try tenant.put(in: bench, { _ in kms })
    var target = try await bench.createTenant(try bench.startServer(AWSTenants.configuration))
    try await bench.fill(keys, target)
    let name = tenant.names[0]
    target.files = bench.files(name)
    try await bench.fill(keys, target)
    let admin = bench.files("admin")
    var (local, aws, calls): ([Double], [Double], [Int]) = ([], [], [])
    for _ in 0..<rounds {
      local.append(try await target.rotateKeys(admin, keys: keys))
      kms.forgetCalls()
      aws.append(try await target.rotateKeys(admin, of: name, keys: keys))
      calls.append(kms.calls.count)
      print("rotate-keys: \(local), aws \(aws) s; calls of KMS: \(kms.calls.map(\.operation))")
    }
    print(
      String(
        format:
          "\nrotate-keys of %d keys of AWS: %.2f s, of the local provider %.2f s, ratio %.2f; at most %d calls of KMS (target: 4)",
        keys,
        median(aws),
        median(local),
        ratio(aws, to: local),
        calls.max() ?? 0
      )
    )
    bench.stopServer()
    try await kms.shutdown()
  }
}
