import Foundation
import Testing

/// What is shipped beside the program.
@Suite struct DeploymentTests {
  private static let deploy = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "deploy")

  @Test func theUnitLeavesTheServiceLittle() throws {
    let unit = Self.deploy.appending(path: "systemd/keyringd.service")
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/systemd-analyze")
    // Exposure 2.0 of 10 at most; without the unit's restrictions it is above 9.
    process.arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", unit.path]
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    let lines = try String(contentsOf: unit, encoding: .utf8).split(separator: "\n")
    for line in [
      "ExecReload=/bin/kill -HUP $MAINPID",
      "Environment=SWIFT_BACKTRACE=enable=no LD_BIND_NOW=1", "LimitCORE=0", "LimitMEMLOCK=128M",
    ] {
      #expect(lines.contains(Substring(line)), "\(line) is there")
    }
  }
}
