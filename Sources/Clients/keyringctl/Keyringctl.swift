import ArgumentParser
import CLinux
import Glibc
import KeyringClient
import SecureMemory

@main
struct Keyringctl: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keyringctl",
    abstract:
      "Onboards tenants, changes variables, rotates CMKs and keys, backs up and restores, and works with keys.",
    discussion: """
      Most commands talk to a keyringd. They find it, and the certificate to show, in this order:
        options        --server HOST:PORT --cert FILE --key FILE --ca FILE
        environment    KEYRING_SERVER, KEYRING_CERT, KEYRING_KEY, KEYRING_CA
        context file   --context FILE, KEYRING_CONTEXT, or else ~/.config/keyring/context.yaml if it is there:
                       lines `server: …`, `cert: …`, `key: …`, `ca: …`; paths are relative to the file

      Which commands a certificate may use follows from its identity: `key` and `import` want an instance's, `tenant create` the
      service administrator's, `set`, `rotate-keys`, `backup`, `status TENANT` and `explain` an administrator's of the service or the
      tenant. `pki`, `verify`, `inspect` and `audit verify` work on files, and talk
      to nobody.

      Exit status 0 means that it was done; anything else comes with one line on standard error that says what to do.
      `keyringctl --generate-completion-script bash|zsh|fish` prints a completion script.
      """,
    version: "0.1.0",
    subcommands: [
      PKI.self, TenantCommands.self, InstanceCommands.self, CMKCommands.self, SetCommands.self,
      ResetCommands.self, VariablesCommand.self, RotateCMKCommand.self,
      RotateKeysCommand.self, BackupCommand.self, RestoreCommand.self, VerifyCommand.self,
      InspectCommand.self, AuditCommands.self,
      KeyCommands.self, ImportCommand.self, StatusCommand.self, ExplainCommand.self, ReloadCommand.self,
      WhoAmICommand.self,
    ]
  )

  static func main() async {
    keepSecretsIn()
    _ = SecureHeap.installWipingAllocator()
    do {
      var command = try parseAsRoot()
      // A client goes on without locked memory: it holds a key for a moment.
      let longer = (command as? ImportCommand).map { ImportCommand.lockedBytes(for: $0.path) }
      _ = SecureHeap.initialize(bytes: longer ?? 1 << 20)
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch let error as KeyringClientError {
      fail("\(error)")
    } catch let error as Failure {
      fail(error.description)
    } catch {
      let code = exitCode(for: error)
      // help, a completion script; said already
      if code.isSuccess || error is ExitCode { exit(withError: error) }
      fail(oneLine(error), status: code.rawValue)
    }
  }

  /// A crash prints nothing of what is in memory: no core file, and not Swift's backtracer, which shows what is behind the registers and took
  /// these signals before `main`, whatever the environment says.
  private static func keepSecretsIn() {
    _ = keyring_forbid_core_files()
    for number in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGQUIT] { signal(number, SIG_DFL) }
    signal(SIGPIPE, SIG_IGN)
  }

  /// What ArgumentParser says on several lines: what is wrong, and which command's help has more.
  private static func oneLine(_ error: any Error) -> String {
    let help = fullMessage(for: error).split(separator: "\n").last { $0.contains("See '") }
    let command = help.flatMap { $0.split(separator: "'").dropFirst().first }
    return message(for: error) + (command.map { ": see `\($0)`" } ?? "")
  }

  private static func fail(_ text: String, status: Int32 = 1) -> Never {
    let line = text.split(whereSeparator: \.isNewline).joined(separator: "; ")
    Output.error("keyringctl: \(line)\n")
    Glibc.exit(status)
  }
}

/// A command's own failure: one line.
struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
