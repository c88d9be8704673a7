import Foundation
import HTTPTransport
import KeyringTestSupport
import Testing

/// What the environment says has no effect. Each in a process of its own, since variables are a process's.
@Suite(.timeLimit(.minutes(1))) struct EnvironmentTests {
  @Test func proxiesKeyLogsAndPasswordsOfTheEnvironmentAreNotUsed() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      let folder = try TestDirectory()
      try folder.write(
        ".netrc",
        "machine 127.0.0.1 login someone password sesame\ndefault login a password b\n"
      )
      // Nobody listens there. SAFETY: no other thread of this process reads the environment yet, here and below.
      for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        unsafe setenv(name, "http://127.0.0.1:1", 1)
      }
      unsafe setenv("HOME", folder.path, 1)
      unsafe setenv("SSLKEYLOGFILE", folder("keys"), 1)

      let pki = try TestPKI()
      let server = try await TestHTTPServer.secure(pki)
      let plain = try await TestHTTPServer()
      let proxy = try await TestHTTPServer("proxy.py")
      let loop = try HTTPLoop()
      var options = HTTPConnections.Options()
      options.caFile = pki.directory("ca.crt")
      let direct = loop.connections(options)
      for request in [server.request("/echo", isSecure: true), plain.request("/echo")] {
        let echo = try Echo(await direct.send(request))
        if !echo.values("authorization").isEmpty { failures.append("a password from .netrc is sent") }
      }
      if FileManager.default.fileExists(atPath: folder("keys")) { failures.append("keys are logged") }

      unsafe setenv("no_proxy", "*", 1)
      options.proxy = "http://127.0.0.1:\(proxy.port)"
      _ = try await loop.connections(options).send(server.request("/echo", isSecure: true))
      if try proxy.said.count != 1 { failures.append("no_proxy turned the proxy off that is configured") }
      finish(failures)
    }
  }

  /// Debian's own configuration of OpenSSL allows no TLS before 1.2 either: here another one does.
  @Test func oldTLSIsNotSpokenWhateverOpenSSLAllows() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      let folder = try TestDirectory()
      let lines = [
        "openssl_conf = all", "[all]", "ssl_conf = ssl", "[ssl]", "system_default = default", "[default]",
        "MinProtocol = TLSv1", "CipherString = DEFAULT@SECLEVEL=0",
      ]
      try folder.write("openssl.cnf", lines.joined(separator: "\n") + "\n")
      unsafe setenv("OPENSSL_CONF", folder("openssl.cnf"), 1)
      let pki = try TestPKI()
      let old = try await TestHTTPServer.secure(pki, "server", ["--old-tls"])
      let new = try await TestHTTPServer.secure(pki)
      var options = HTTPConnections.Options()
      options.caFile = pki.directory("ca.crt")
      let connections = try HTTPLoop().connections(options)
      if try await connections.send(new.request("/echo", isSecure: true)).status != 200 {
        failures.append("TLS of today is spoken")
      }
      let error = await failure(connections, old.request("/echo", isSecure: true))
      if error?.kind != "unreachable" { failures.append("TLS 1.1: \(error as Any)") }
      finish(failures)
    }
  }
}
