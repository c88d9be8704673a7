// swift-tools-version: 6.2
import PackageDescription

// MARK: Settings

let strictSwift: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .enableUpcomingFeature("ImmutableWeakCaptures"),
]

let strictC: [CSetting] = [
  .unsafeFlags(["-std=gnu11", "-Wall", "-Wextra", "-Werror"])
]

extension Target {
  static func c(
    _ name: String,
    _ layer: String,
    dependencies: [Target.Dependency] = [],
    libraries: [String] = []
  ) -> Target {
    .target(
      name: name,
      dependencies: dependencies,
      path: "Sources/\(layer)/\(name)",
      cSettings: strictC,
      linkerSettings: libraries.map { .linkedLibrary($0) }
    )
  }

  static func library(_ name: String, _ layer: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(
      name: name,
      dependencies: dependencies,
      path: "Sources/\(layer)/\(name)",
      swiftSettings: strictSwift
    )
  }

  static func program(_ name: String, _ layer: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
      name: name,
      dependencies: dependencies,
      path: "Sources/\(layer)/\(name)",
      swiftSettings: strictSwift
    )
  }

  static func tests(
    _ name: String,
    _ dependencies: [Target.Dependency],
    exclude: [String] = [],
    resources: [Resource] = []
  ) -> Target {
    .testTarget(
      name: name,
      dependencies: dependencies,
      path: "Tests/\(name)",
      exclude: exclude,
      resources: resources,
      swiftSettings: strictSwift
    )
  }
}

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let collections = Target.Dependency.product(name: "HashTreeCollections", package: "swift-collections")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")

// MARK: Targets, by layer; each may depend on its own layer's earlier ones and on the layers above it here

let cLibraries: [Target] = [
  .c("COpenSSL", "CLibraries", libraries: ["ssl", "crypto"]),
  .c("CProtobufC", "CLibraries", libraries: ["protobuf-c"]),
  .c("CLinux", "CLibraries"),
  .c("CCurl", "CLibraries", libraries: ["curl"]),
  .c("CMessages", "CLibraries", dependencies: ["CProtobufC"]),
]

let core: [Target] = [
  .library("SecureMemory", "Core", ["COpenSSL"]),
  .library("KeyringCore", "Core", ["SecureMemory", collections]),
  .library("MessageEncoding", "Core", ["CProtobufC"]),
  .library(
    "WireProtocol",
    "Core",
    ["CMessages", "MessageEncoding", "CProtobufC", "KeyringCore", "SecureMemory"]
  ),
]

let platform: [Target] = [
  .library("ConfigurationFiles", "Platform", [yams]),
  .library("Cryptography", "Platform", ["COpenSSL", "SecureMemory"]),
  .library(
    "KeyringStorage",
    "Platform",
    [
      "CLinux", "CMessages", "CProtobufC", "Cryptography", "KeyringCore", "MessageEncoding", "SecureMemory",
      collections,
    ]
  ),
  .library(
    "AuditLog",
    "Platform",
    ["CLinux", "Cryptography", "KeyringCore", "KeyringStorage", "SecureMemory"]
  ),
  .library(
    "TLSTransport",
    "Platform",
    ["COpenSSL", "KeyringCore", "KeyringStorage", "SecureMemory", nioCore]
  ),
  .library(
    "HTTPTransport",
    "Platform",
    ["CCurl", "CLinux", "COpenSSL", "Cryptography", "SecureMemory"]
  ),
  .library(
    "CMKProviders",
    "Platform",
    ["Cryptography", "HTTPTransport", "KeyringCore", "KeyringStorage", "SecureMemory"]
  ),
]

let server: [Target] = [
  .library(
    "TenantRegistry",
    "Server",
    ["ConfigurationFiles", "Cryptography", "KeyringCore", "KeyringStorage"]
  ),
  .library(
    "KeyringService",
    "Server",
    [
      "AuditLog", "CLinux", "CMKProviders", "ConfigurationFiles", "Cryptography", "HTTPTransport",
      "KeyringCore", "KeyringStorage",
      "SecureMemory", "TLSTransport", "TenantRegistry", "WireProtocol", collections, logging, nioCore,
      nioHTTP1, nioPosix,
    ]
  ),
  .program(
    "keyringd",
    "Server",
    ["ConfigurationFiles", "KeyringService", "TenantRegistry", arguments, lifecycle, logging]
  ),
]

let clients: [Target] = [
  .library(
    "KeyringClient",
    "Clients",
    ["KeyringCore", "SecureMemory", "TLSTransport", "WireProtocol", nioCore, nioPosix]
  ),
  .library(
    "ImportFormats",
    "Clients",
    ["CMKProviders", "Cryptography", "KeyringCore", "KeyringStorage", "SecureMemory"]
  ),
  .program(
    "keyringctl",
    "Clients",
    [
      "AuditLog", "CLinux", "CMKProviders", "ConfigurationFiles", "Cryptography", "ImportFormats",
      "KeyringClient", "KeyringCore",
      "KeyringStorage", "SecureMemory",
      "TLSTransport", "WireProtocol", arguments, collections,
    ]
  ),
]

let testing: [Target] = [
  .c("CBenchmark", "Testing", libraries: ["ssl", "crypto"]),
  .program(
    "keyringbench",
    "Testing",
    [
      "CBenchmark", "Cryptography", "KeyringClient", "KeyringCore", "KeyringTestSupport", "SecureMemory",
      "TLSTransport", "WireProtocol", arguments, histogram,
    ]
  ),
  .program(
    "FuzzTargets",
    "Testing",
    [
      "CMKProviders", "Cryptography", "HTTPTransport", "ImportFormats", "KeyringCore", "KeyringStorage",
      "MessageEncoding", "SecureMemory", "TLSTransport", "TenantRegistry", "WireProtocol",
    ]
  ),
  .library(
    "KeyringTestSupport",
    "Testing",
    [
      "AuditLog", "COpenSSL", "Cryptography", "KeyringClient", "KeyringCore", "KeyringService",
      "KeyringStorage", "SecureMemory", "TLSTransport", "TenantRegistry", "WireProtocol", logging, nioCore,
      nioHTTP1, nioPosix,
    ]
  ),
]

let tests: [Target] = [
  .tests("ArchitectureTests", []),
  .tests("SecureMemoryTests", ["KeyringTestSupport", "SecureMemory"]),
  .tests("FuzzTargetsTests", ["FuzzTargets"]),
  .tests("KeyringCoreTests", ["KeyringCore", collections]),
  .tests(
    "CryptographyTests",
    ["Cryptography", "KeyringTestSupport", "SecureMemory"],
    exclude: ["Vectors"]
  ),
  .tests(
    "CMKProvidersTests",
    ["CMKProviders", "HTTPTransport", "KeyringCore", "KeyringStorage", "KeyringTestSupport", "SecureMemory"]
  ),
  .tests(
    "AuditLogTests",
    ["AuditLog", "Cryptography", "KeyringCore", "KeyringStorage", "KeyringTestSupport", "SecureMemory"]
  ),
  .tests(
    "HTTPTransportTests",
    ["Cryptography", "HTTPTransport", "KeyringTestSupport", "SecureMemory"],
    exclude: ["Scripts"]
  ),
  .tests(
    "TenantRegistryTests",
    ["ConfigurationFiles", "KeyringCore", "KeyringStorage", "KeyringTestSupport", "TenantRegistry"]
  ),
  .tests(
    "WireProtocolTests",
    ["CMessages", "CProtobufC", "KeyringCore", "KeyringTestSupport", "SecureMemory", "WireProtocol"]
  ),
  .tests(
    "KeyringStorageTests",
    [
      "Cryptography", "KeyringCore", "KeyringService", "KeyringStorage", "KeyringTestSupport", "SecureMemory",
      collections,
    ],
    exclude: ["Golden"]
  ),
  .tests(
    "KeyringServiceTests",
    [
      "CMKProviders", "Cryptography", "KeyringCore", "KeyringService", "KeyringStorage", "KeyringTestSupport",
      "SecureMemory",
      "TenantRegistry", "WireProtocol", logging,
    ]
  ),
  .tests(
    "ImportFormatsTests",
    ["Cryptography", "ImportFormats", "KeyringCore", "KeyringTestSupport", "SecureMemory"],
    exclude: ["Files"]
  ),
  .tests(
    "TLSTransportTests",
    [
      "COpenSSL", "Cryptography", "KeyringCore", "KeyringTestSupport", "SecureMemory", "TLSTransport",
      nioCore,
    ]
  ),
  .tests(
    "IntegrationTests",
    [
      "AuditLog", "CMKProviders", "Cryptography", "KeyringClient", "KeyringCore", "KeyringStorage",
      "KeyringTestSupport", "SecureMemory", "TLSTransport", "WireProtocol", collections, nioCore, nioPosix,
    ],
    exclude: ["Mutants"]
  ),
  .tests(
    "CClientTests",
    ["Cryptography", "KeyringCore", "KeyringTestSupport", "TLSTransport", "WireProtocol"],
    exclude: ["Programs"]
  ),
  .tests(
    "DatabaseTests",
    ["Cryptography", "KeyringCore", "KeyringTestSupport", "TLSTransport"],
    exclude: ["Programs"]
  ),
]

let package = Package(
  name: "keyring",
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: cLibraries + core + platform + server + clients + testing + tests
)
