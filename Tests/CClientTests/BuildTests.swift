import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// The C clients build without a warning, with and without sanitizers, and libkeyring serves programs outside of this repository.
@Suite struct BuildTests {
  private static let clients = "\(CClients.top)/Sources/Clients"

  @Test(arguments: [nil] + CClients.Sanitizer.allCases.map { $0 })
  func builds(_ sanitizer: CClients.Sanitizer?) async throws {
    _ = try await CClients.built(sanitizer)
  }

  private func shell(_ script: String, _ arguments: [String], environment: [String: String] = [:])
    async throws
    -> String
  {
    let outcome = try await TestProgram(path: "/bin/sh").run(
      ["-euc", script, "sh"] + arguments,
      environment: environment
    )
    #expect(outcome.status == 0, "\(outcome.error)")
    return outcome.text
  }

  /// What it exports is what its headers declare, and what it needs is OpenSSL and libc.
  @Test func itExportsItsHeaders() async throws {
    let library = "\(try await CClients.built())/libkeyring.so.1"
    let exported = try await shell(
      #"nm -D --defined-only "$1" | sed -n 's/.* T \(.*\)@@KEYRING_1.0$/\1/p' | sort"#,
      [library]
    )
    let declared = try await shell(
      #"grep -ho '\bkeyring_[a-z_]*(' "$1"/keyring.h "$1"/keyring_admin.h | tr -d '(' | grep -vx keyring_name_of | sort -u"#,
      ["\(Self.clients)/CKeyringClient/include"]
    )
    #expect(exported == declared && exported.contains("keyring_fetch\n"))
    let all = try await shell(#"nm -D --defined-only "$1" | grep -cv ' A KEYRING_1.0'"#, [library])
    #expect(Int(all.trimmingCharacters(in: .newlines)) == exported.split(separator: "\n").count)
    let needed = try await shell(#"objdump -p "$1" | sed -n 's/.*NEEDED *//p' | sort"#, [library])
    #expect(needed == "libc.so.6\nlibcrypto.so.3\nlibssl.so.3\n")
  }

  /// The example, built against an installed copy through pkg-config, and the headers as C++ reads them.
  @Test func anInstalledCopyServesAProgram() async throws {
    _ = try await CClients.built()
    let folder = try TestDirectory()
    let script = #"""
      flock "$3/.build/c.lock" make -s -C "$1" install-libkeyring PREFIX="$2/usr"
      export PKG_CONFIG_PATH="$2/usr/lib/pkgconfig"
      gcc -Wall -Wextra -Werror "$1/CKeyringClient/examples/keyring-example.c" $(pkg-config --cflags --libs keyring) -o "$2/example"
      printf '#include <keyring_admin.h>\nint main() { return keyring_version() == nullptr; }\n' >"$2/header.cc"
      g++ -std=c++17 -Wall -Wextra -Werror "$2/header.cc" $(pkg-config --cflags --libs keyring) -o "$2/header"
      LD_LIBRARY_PATH="$2/usr/lib" "$2/header"
      """#
    _ = try await shell(script, [Self.clients, folder.path, CClients.top])
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let example = TestProgram(path: folder("example"))
    let environment = [
      "LD_LIBRARY_PATH": folder("usr/lib"), "KEYRING_SERVER": "localhost:\(server.port)",
      "KEYRING_CERT": files.certificateFile, "KEYRING_KEY": files.privateKeyFile,
      "KEYRING_CA": files.authorityFile,
    ]
    for _ in 0..<2 {
      let outcome = try await example.run(["MyKey"], environment: environment)
      #expect(outcome.text == "MyKey: AES, 32 bytes, version 1 of 1\n", "\(outcome.error)")
    }
    await server.shutdown()
    let away = try await example.run(["MyKey"], environment: environment)
    #expect(away.status == 1 && away.error.contains("tenant acme, instance db1: UNREACHABLE"))
  }
}
