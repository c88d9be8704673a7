internal import KeyringCore
internal import SecureMemory
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

/// What is fuzzed. A target takes any bytes; beyond not stopping, it checks what must hold of whatever was accepted.
enum FuzzTarget: String, CaseIterable {
  case frame, request, storage, configuration, identity
  case json, envelope, errorAnswer, xml, profiles
  case componentFile, pluginFile

  /// Runs the target on one input.
  ///
  /// - Returns: true where the input was accepted, so that its properties were checked.
  @discardableResult
  func run(_ bytes: UnsafeRawBufferPointer) -> Bool {
    switch self {
    case .frame: unsafe frame(bytes)
    case .request: unsafe request(bytes)
    case .storage: unsafe StorageInput.run(Array(bytes))
    case .configuration: unsafe ConfigurationInput.run(Array(bytes))
    case .identity: unsafe identity(Array(bytes))
    case .json: unsafe AWSInput.json(Array(bytes))
    case .envelope: unsafe AWSInput.envelope(Array(bytes))
    case .errorAnswer: unsafe AWSInput.errorAnswer(Array(bytes))
    case .xml: unsafe AWSInput.xml(Array(bytes))
    case .profiles: unsafe AWSInput.profiles(Array(bytes))
    case .componentFile: unsafe ImportInput.component(Array(bytes))
    case .pluginFile: unsafe ImportInput.plugin(Array(bytes))
    }
  }

  /// Valid inputs to begin from.
  func seeds() throws -> [[UInt8]] {
    switch self {
    case .frame: try RequestSeeds.frames()
    case .request: try RequestSeeds.frames().map { Array($0.dropFirst(Frame.prefixBytes)) }
    case .storage: try StorageInput.seeds()
    case .configuration: ConfigurationInput.seeds
    case .identity:
      ["admin", "tenant/acme/admin", "tenant/acme/instance/db-1"].map {
        Array("spiffe://t.example/\($0)".utf8)
      }
    case .json: AWSSeeds.json
    case .envelope: AWSSeeds.envelopes
    case .errorAnswer: AWSSeeds.errorAnswers
    case .xml: AWSSeeds.xml
    case .profiles: AWSSeeds.profiles
    case .componentFile: ImportInput.componentSeeds
    case .pluginFile: ImportInput.pluginSeeds
    }
  }

  /// Fed a byte more at a time, a frame is incomplete until it is what it is in one piece; a message is as long as its prefix says.
  private func frame(_ bytes: UnsafeRawBufferPointer) -> Bool {
    func next(_ count: Int) -> Result<Frame.Next, WireError> {
      Result { () throws(WireError) in
        try unsafe Frame.next(
          in: UnsafeRawBufferPointer(rebasing: bytes[..<count]),
          messageBytesMax: Frame.messageBytesDefault
        )
      }
    }
    let whole = next(bytes.count)
    for count in 0..<bytes.count {
      let part = next(count)
      precondition(part == .success(.incomplete) || part == whole, "a frame changed as more of it came")
    }
    guard case .success(.message(let count)) = whole else { return false }
    precondition((1...Frame.messageBytesDefault).contains(count) && bytes.count >= Frame.prefixBytes + count)
    precondition(unsafe bytes.starts(with: Frame.prefix(count: count)), "one prefix a length")
    return true
  }

  private static let instance: InstanceName = {
    do {
      return try InstanceName("db-1")
    } catch {
      preconditionFailure("\(error)")
    }
  }()

  /// Where the short way to a fetch answers, the decoder answers the same.
  private func check(_ view: FetchView, _ request: Request?) {
    guard let request, case .fetch(let name, let version) = request.call else {
      preconditionFailure("a fetch that the decoder refuses, or takes for something else")
    }
    precondition(view.id == request.id && view.minSequence == request.minSequence && view.version == version)
    precondition(
      request.traceparent.isEmpty && request.idempotencyID == nil,
      "a part of the request is passed over"
    )
    do {
      let identity = try name.identity(for: Self.instance)
      precondition(view.identity == identity, "another key is fetched")
    } catch {
      preconditionFailure("a fetch of a name that is none: \(error)")
    }
  }

  /// What decodes has the length that its encoding has, and decodes to the same again.
  private func request(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let decoder = RequestDecoder()
    let view = unsafe FetchView(bytes, instance: Self.instance)
    let request: Request
    do {
      request = unsafe try decoder.decode(bytes)
    } catch {
      if let view { check(view, nil) }
      return false
    }
    if let view { check(view, request) }
    let encoded = encode(request)
    precondition(encoded.count == bytes.count + Frame.prefixBytes, "a request has one length")
    do {
      let again = try unsafe encoded.withUnsafeBytes { encoded throws(WireError) in
        try unsafe decoder.decode(UnsafeRawBufferPointer(rebasing: encoded[Frame.prefixBytes...]))
      }
      precondition(encode(again) == encoded, "what was encoded decodes to something else")
    } catch {
      preconditionFailure("what was encoded does not decode: \(error)")
    }
    return true
  }

  private func encode(_ request: Request) -> [UInt8] {
    var output = WipedBuffer()
    RequestEncoder.appendFrame(request, to: &output)
    return unsafe output.withUnsafeBytes { unsafe Array($0) }
  }

  /// A certificate's name is accepted only where it is, to the byte, what its identity is written as.
  private func identity(_ bytes: [UInt8]) -> Bool {
    let names = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { Array($0) }
    do {
      let identity = try PeerIdentity.parse(uriSANs: names, trustDomain: "t.example")
      precondition(names == [Array(identity.uri(trustDomain: "t.example").utf8)], "another name was accepted")
      return true
    } catch {
      return false
    }
  }
}
