internal import ConfigurationFiles
internal import UnixSignals
import ArgumentParser
import Glibc
import KeyringService
import Logging
import ServiceLifecycle
import TenantRegistry

@main
struct Keyringd: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keyringd",
    abstract:
      "The keyring server: keeps the encryption keys of many tenants' databases, each tenant under its own CMK.",
    discussion: """
      Reads its configuration, listens for TLS 1.3 connections with client certificates, and writes a line to standard
      error once it is ready. Tenants are folders of the tenants directory, opened at their first use.

      SIGTERM (or SIGINT) ends it in good order: no new connections, requests in flight are answered, storage is closed.
      SIGHUP reads the certificate, its key, the client CA, the revocation list and open tenants' files anew, as
      `keyringctl reload` does; what cannot be used is in the log, and the last good one stays in force.
      docs/CONFIGURATION.md describes the file; deploy/keyringd.example.yaml is one to copy.
      """,
    version: Service.version
  )

  @Option(name: .long, help: "The configuration file (YAML).")
  var config: String

  @Flag(name: .long, help: "Check the configuration, its files and directories, and exit; changes nothing.")
  var check = false

  static func main() async {
    ProcessHardening.enterEnvironment(CommandLine.arguments)
    do {
      var command = try parse()
      try await command.run()
    } catch let error as ConfigurationError {
      FileHandles.error("keyringd: \(error)\n")
      Glibc.exit(1)
    } catch {
      exit(withError: error)
    }
  }

  mutating func run() async throws {
    try ProcessHardening.harden()
    let configuration = try readConfiguration()
    let isLocked = try ProcessHardening.lockMemory(
      bytes: configuration.secureMemoryBytes,
      allowsUnlocked: configuration.allowsUnlockedMemory
    )
    LoggingSystem.bootstrap(StreamLogHandler.standardError)
    var logger = Logger(label: "keyringd")
    logger.logLevel = Logger.Level(rawValue: configuration.logLevel) ?? .info
    if !isLocked { logger.warning("memory is not locked: keys may reach the swap space") }
    // SAFETY: getenv answers NULL or a C string that is copied at once.
    let credentials = unsafe getenv("CREDENTIALS_DIRECTORY").map { unsafe String(cString: $0) }
    guard !check else {
      try ServiceResources.check(configuration, credentialsDirectory: credentials)
      return FileHandles.error("keyringd: the configuration is good\n")
    }
    let resources = try ServiceResources(configuration, credentialsDirectory: credentials, logger: logger)
    let service = Service(resources, isMemoryLocked: isLocked)
    let server = try await KeyringServer.start(service)
    // Before the ready line: who has read that may send it.
    let hangups = await UnixSignalsSequence(trapping: .sighup)
    let health = server.healthPort.map { ", health on port \($0)" } ?? ""
    FileHandles.error(
      "keyringd \(Service.version) ready on \(configuration.listen.host):\(server.port)\(health)\n"
    )
    let group = ServiceGroup(
      services: [Daemon(server: server, hangups: hangups)],
      gracefulShutdownSignals: [.sigterm, .sigint],
      logger: logger
    )
    try await group.run()
  }

  private func readConfiguration() throws -> ServiceConfiguration {
    let directory =
      config.contains("/") ? String(config[..<(config.lastIndex(of: "/") ?? config.startIndex)]) : "."
    return try ServiceConfiguration(
      yaml: FileHandles.read(config),
      file: config,
      directory: directory.isEmpty ? "/" : directory
    )
  }
}

/// The running server, as the service group sees it.
private struct Daemon: ServiceLifecycle.Service {
  let server: KeyringServer
  let hangups: UnixSignalsSequence

  func run() async throws {
    let (server, hangups) = (self.server, self.hangups)
    let reloading = Task { for await _ in hangups { await server.reload() } }
    try await gracefulShutdown()
    reloading.cancel()
    await server.shutdown()
  }
}

/// Standard error, and the one file that is read whole.
private enum FileHandles {
  static func error(_ text: String) {
    let bytes = Array(text.utf8)
    // SAFETY: the array lives for the call. What cannot be written to standard error cannot be reported either.
    _ = unsafe write(STDERR_FILENO, bytes, bytes.count)
  }

  static func read(_ path: String) throws(ConfigurationError) -> String {
    // SAFETY: the stream is closed before the function ends.
    guard let file = unsafe fopen(path, "r") else { throw ConfigurationError("cannot open \(path)") }
    defer { _ = unsafe fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while bytes.count <= 65_536 {
      let count = unsafe fread(&chunk, 1, chunk.count, file)
      if count == 0 { break }
      bytes += chunk[..<count]
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw ConfigurationError("\(path) is not UTF-8")
    }
    return text
  }
}
