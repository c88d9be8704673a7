import Foundation
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import Synchronization

/// A KMS of a test's own, on loopback: it keeps CMKs and encrypts (not for real) with an encryption context, and behaves as a test tells it to.
/// It does not check signatures; who signed, by the access key id, it notes and may refuse.
public final class ScriptedKMS: Sendable {
  /// What becomes of a call.
  public enum Behaviour: Sendable {
    /// As AWS KMS answers.
    case normal
    /// The same, after so long.
    case late(Duration)
    /// This status and body.
    case answer(Int, String)
    /// An error of AWS's form: its type, then its message.
    case error(String, String)
    /// Nothing, and the connection stays.
    case silence
    /// The head and half of the body, then the end of the connection.
    case half
    /// The connection ends at once.
    case hangUp
    /// As AWS KMS answers, then changed.
    case changed(@Sendable (inout [String: Any]) -> Void)
  }

  /// Whether a CMK can be used.
  public enum KeyState: String, Sendable {
    case enabled = "Enabled"
    case disabled = "Disabled"
    case pendingDeletion = "PendingDeletion"
  }

  private struct State {
    var keys: [String: KeyState] = [:]
    var aliases: [String: String] = [:]
    var behaviour: [String: Behaviour] = [:]
    var all: Behaviour = .normal
    var calls: [Call] = []
    var refused: [String: String] = [:]
    var rotations = 0
    var serial = 0
  }

  /// One call that came.
  public struct Call: Sendable {
    /// `Decrypt`, say.
    public let operation: String
    /// Who signed.
    public let accessKeyID: String
    /// The region that was signed for.
    public let region: String
    /// The encryption context, `name=value` each, sorted.
    public let context: [String]
    /// As sent.
    public let keyID: String
  }

  private let region: String
  private let account: String
  private let state = Mutex(State())
  private let group: MultiThreadedEventLoopGroup
  private let channel: Mutex<(any Channel)?> = Mutex(nil)
  private let listeningPort = Mutex(0)

  /// Starts one, on a free port or on that of another that ended.
  ///
  /// - Parameters:
  ///   - account: of its ARNs.
  ///   - keys: ids of the CMKs that it has from its first call on: of that other.
  public init(
    region: String = "eu-central-1",
    account: String = "111122223333",
    port: Int = 0,
    keys: [String] = []
  ) async throws {
    self.region = region
    self.account = account
    group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    for id in keys { _ = makeKey(id) }
    try await listen(port)
  }

  private func listen(_ port: Int) async throws {
    let bound = try await ServerBootstrap(group: group)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .serverChannelOption(.backlog, value: 1024)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.configureHTTPServerPipeline()
          try channel.pipeline.syncOperations.addHandler(Handler(self))
        }
      }
      .bind(host: "127.0.0.1", port: port).get()
    channel.withLock { $0 = bound }
    listeningPort.withLock { $0 = bound.localAddress?.port ?? 0 }
  }

  /// For a tenant's `endpoint`; its host is `127.0.0.1`.
  public var endpoint: String { "http://127.0.0.1:\(listeningPort.withLock { $0 })" }

  /// Ends it.
  public func shutdown() async throws {
    try await channel.withLock({ $0 })?.close()
    try await group.shutdownGracefully()
  }

  // MARK: What a test says

  /// Makes a CMK and answers its ARN.
  ///
  /// - Parameter id: the key id; nil for a new one.
  public func makeKey(_ id: String? = nil) -> String {
    let id = id ?? UUID().uuidString.lowercased()
    state.withLock { $0.keys[id] = .enabled }
    return arn(id)
  }

  /// Points `alias/...` to a CMK.
  public func setAlias(_ alias: String, to key: String) {
    state.withLock { $0.aliases[alias] = Self.id(key) }
  }

  /// Changes a CMK's state; nil takes it away.
  public func set(_ key: String, _ keyState: KeyState?) {
    state.withLock { $0.keys[Self.id(key)] = keyState }
  }

  /// What becomes of every call from now on.
  public func behave(_ behaviour: Behaviour) { state.withLock { $0.all = behaviour } }

  /// What becomes of the calls of one operation from now on, whatever of the others.
  public func behave(_ operation: String, _ behaviour: Behaviour?) {
    state.withLock { $0.behaviour[operation] = behaviour }
  }

  /// Refuses whoever signs with this access key id with this error; nil: no longer.
  public func refuse(_ accessKeyID: String, with type: String?) {
    state.withLock { $0.refused[accessKeyID] = type }
  }

  /// All calls so far.
  public var calls: [Call] { state.withLock { $0.calls } }

  /// Forgets the calls so far.
  public func forgetCalls() { state.withLock { $0.calls = [] } }

  private func arn(_ id: String) -> String { "arn:aws:kms:\(region):\(account):key/\(id)" }

  private static func id(_ key: String) -> String { key.split(separator: "/").last.map(String.init) ?? key }

  // MARK: Answering

  fileprivate struct Answer {
    var status = 200
    var body: [UInt8] = []
    var requestID = ""
    var behaviour = Behaviour.normal
  }

  fileprivate func answer(_ head: HTTPRequestHead, _ body: [UInt8]) -> Answer {
    let operation =
      head.headers.first(name: "x-amz-target")?.split(separator: ".").last.map(String.init) ?? ""
    let scope = Self.scope(head.headers.first(name: "authorization") ?? "")
    let json = (try? JSONSerialization.jsonObject(with: Data(body))) as? [String: Any] ?? [:]
    var answer = Answer()
    let refusal = state.withLock { state -> String? in
      state.serial += 1
      answer.requestID = "scripted-\(state.serial)"
      state.calls.append(
        Call(
          operation: operation,
          accessKeyID: scope.accessKeyID,
          region: scope.region,
          context: Self.context(json),
          keyID: json["KeyId"] as? String ?? ""
        )
      )
      answer.behaviour = state.behaviour[operation] ?? state.all
      return state.refused[scope.accessKeyID]
    }
    if let refusal { return answer.failed(refusal, "refused by the test") }
    guard scope.region == region else { return answer.failed("NotFoundException", "not in this region") }
    switch answer.behaviour {
    case .answer(let status, let text):
      answer.status = status
      answer.body = Array(text.utf8)
      return answer
    case .error(let type, let message): return answer.failed(type, message)
    case .normal, .late, .silence, .half, .hangUp, .changed: break
    }
    return execute(operation, json, answer)
  }

  /// Of `AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/kms/aws4_request, ...`.
  private static func scope(_ authorization: String) -> (accessKeyID: String, region: String) {
    guard let start = authorization.range(of: "Credential=") else { return ("", "") }
    let parts = authorization[start.upperBound...].split(separator: "/")
    return parts.count > 3 ? (String(parts[0]), String(parts[2])) : ("", "")
  }

  private static func context(_ json: [String: Any], _ name: String = "EncryptionContext") -> [String] {
    (json[name] as? [String: String] ?? [:]).map { "\($0.key)=\($0.value)" }.sorted()
  }

  private func execute(_ operation: String, _ json: [String: Any], _ answer: Answer) -> Answer {
    do {
      var reply: [String: Any]
      switch operation {
      case "GenerateRandom": reply = ["Plaintext": Self.random(json["NumberOfBytes"] as? Int ?? 0)]
      case "GenerateDataKey":
        let id = try usable(json["KeyId"])
        let plaintext = Self.random(json["NumberOfBytes"] as? Int ?? 0)
        reply = [
          "KeyId": arn(id), "Plaintext": plaintext,
          "CiphertextBlob": Self.wrap(plaintext, id, Self.context(json)),
        ]
      case "Encrypt":
        let id = try usable(json["KeyId"])
        reply = [
          "KeyId": arn(id), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
          "CiphertextBlob": Self.wrap(json["Plaintext"] as? String ?? "", id, Self.context(json)),
        ]
      case "Decrypt":
        let id = try usable(json["KeyId"])
        let plaintext = try Self.unwrap(json["CiphertextBlob"], id, Self.context(json))
        reply = ["KeyId": arn(id), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "Plaintext": plaintext]
      case "DescribeKey":
        let (id, keyState) = try found(json["KeyId"])
        reply = ["KeyMetadata": ["Arn": arn(id), "KeyId": id, "KeyState": keyState.rawValue]]
      case "RotateKeyOnDemand":
        let id = try usable(json["KeyId"])
        state.withLock { $0.rotations += 1 }
        reply = ["KeyId": id]
      case "ScheduleKeyDeletion":
        let (id, keyState) = try found(json["KeyId"])
        guard keyState != .pendingDeletion, let days = json["PendingWindowInDays"] as? Int,
          (7...30).contains(days)
        else { return answer.failed("KMSInvalidStateException", "\(arn(id)) is pending deletion.") }
        state.withLock { $0.keys[id] = .pendingDeletion }
        reply = ["KeyId": arn(id), "KeyState": "PendingDeletion", "PendingWindowInDays": days]
      default: return answer.failed("UnsupportedOperationException", operation)
      }
      if case .changed(let change) = answer.behaviour { change(&reply) }
      var answer = answer
      answer.body = Array(try JSONSerialization.data(withJSONObject: reply))
      return answer
    } catch let error as Failure {
      return answer.failed(error.type, error.message)
    } catch {
      return answer.failed("KMSInternalException", "\(error)")
    }
  }

  private struct Failure: Error {
    let type: String
    let message: String
  }

  private func found(_ keyID: Any?) throws -> (String, KeyState) {
    let text = keyID as? String ?? ""
    let found = state.withLock { state -> (String, KeyState)? in
      let alias = text.range(of: "alias/").map { String(text[$0.lowerBound...]) }
      let id = alias.map { state.aliases[$0] ?? "" } ?? Self.id(text)
      return state.keys[id].map { (id, $0) }
    }
    guard let found else { throw Failure(type: "NotFoundException", message: "Key '\(text)' does not exist") }
    return found
  }

  private func usable(_ keyID: Any?) throws -> String {
    let (id, keyState) = try found(keyID)
    switch keyState {
    case .enabled: return id
    case .disabled: throw Failure(type: "DisabledException", message: "\(arn(id)) is disabled.")
    case .pendingDeletion:
      throw Failure(type: "KMSInvalidStateException", message: "\(arn(id)) is pending deletion.")
    }
  }

  private static func random(_ count: Int) -> String {
    Data((0..<count).map { _ in UInt8.random(in: 0...255) }).base64EncodedString()
  }

  private static func wrap(_ plaintext: String, _ id: String, _ context: [String]) -> String {
    Data("\(id)|\(context.joined(separator: ","))|\(plaintext)".utf8).base64EncodedString()
  }

  private static func unwrap(_ blob: Any?, _ id: String, _ context: [String]) throws -> String {
    let bytes = Data(base64Encoded: blob as? String ?? "") ?? Data()
    let parts = String(decoding: bytes, as: UTF8.self).split(separator: "|", omittingEmptySubsequences: false)
    guard parts.count == 3 else { throw Failure(type: "InvalidCiphertextException", message: "") }
    guard parts[0] == id else {
      throw Failure(
        type: "IncorrectKeyException",
        message: "The key ID in the request does not identify a CMK that can perform this operation."
      )
    }
    guard parts[1] == context.joined(separator: ",") else {
      throw Failure(type: "InvalidCiphertextException", message: "")
    }
    return String(parts[2])
  }
}

extension ScriptedKMS.Answer {
  fileprivate func failed(_ type: String, _ message: String) -> ScriptedKMS.Answer {
    var answer = self
    answer.status = 400
    answer.body = Array("{\"__type\":\"\(type)\",\"message\":\"\(message)\"}".utf8)
    answer.behaviour = .normal
    return answer
  }
}

/// One connection.
private final class Handler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let kms: ScriptedKMS
  private var head: HTTPRequestHead?
  private var body: [UInt8] = []

  init(_ kms: ScriptedKMS) { self.kms = kms }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      self.head = head
      body = []
    case .body(let part): body += Array(part.readableBytesView)
    case .end:
      guard let head else { return }
      respond(kms.answer(head, body), context)
    }
  }

  private func respond(_ answer: ScriptedKMS.Answer, _ context: ChannelHandlerContext) {
    switch answer.behaviour {
    case .silence: return
    case .hangUp: context.close(promise: nil)
    case .half: write(answer, context, bytes: answer.body.count / 2)
    case .late(let pause):
      let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
      let amount = TimeAmount.nanoseconds(
        pause.components.seconds * 1_000_000_000 + pause.components.attoseconds / 1_000_000_000
      )
      context.eventLoop.scheduleTask(in: amount) {
        let (me, context) = bound.value
        me.write(answer, context, bytes: answer.body.count)
      }
    case .normal, .answer, .error, .changed: write(answer, context, bytes: answer.body.count)
    }
  }

  private func write(_ answer: ScriptedKMS.Answer, _ context: ChannelHandlerContext, bytes: Int) {
    let head = HTTPResponseHead(
      version: .http1_1,
      status: HTTPResponseStatus(statusCode: answer.status),
      headers: [
        "content-type": "application/x-amz-json-1.1", "content-length": "\(answer.body.count)",
        "x-amzn-requestid": answer.requestID,
      ]
    )
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    context.write(
      wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: answer.body.prefix(bytes))))),
      promise: nil
    )
    guard bytes == answer.body.count else {
      context.flush()
      return context.close(promise: nil)
    }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
  }
}
