internal import KeyringCore
internal import NIOCore
internal import SecureMemory
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

extension Connection {
  // MARK: Requests

  func execute(_ request: Request, messageBytes: Int, _ connection: TLSConnection) {
    guard let caller else { return connection.close() }
    service.calls.add(1, ordering: .relaxed)
    do throws(ServiceError) {
      try takeRates(Admission.demand(of: request.call, isAdministrator: isAdministrator))
    } catch {
      return reply(
        Service.Answer(sequence: 0, outcome: .failure(error)),
        request.id,
        connection,
        request: request
      )
    }
    if messageBytes > Frame.messageBytesDefault, !mayBeLarge(request.call) {
      let error = WireError.tooLarge(bytes: messageBytes, max: Frame.messageBytesDefault)
      return reply(
        Service.Answer(sequence: 0, outcome: .failure(.malformed(""))),
        request.id,
        connection,
        status: error.status,
        request: request
      )
    }
    guard inFlight[request.id] == nil else {
      let error = ServiceError.malformed("a request of this id is in flight on this connection")
      return reply(
        Service.Answer(sequence: 0, outcome: .failure(error)),
        request.id,
        connection,
        request: request
      )
    }
    if case .fetch(let name, let version) = request.call, let instance,
      let keyring = tenant?.openKeyring(
        for: instance,
        notBefore: caller.notBefore,
        needing: [.read, name.scope.access]
      )
    {
      do throws(KeyringError) {
        let identity = try name.identity(for: instance)
        if fetch(FetchRequest(request, identity, version), keyring, connection) { return }
      } catch {
        return reply(
          Service.Answer(sequence: 0, outcome: .failure(.keyring(error))),
          request.id,
          connection,
          request: request
        )
      }
    }
    start(request, caller, messageBytes: messageBytes, connection)
  }

  /// Before anything else is done for a request: what it needs of the rates, unless `answerFetch` took that for it.
  private func takeRates(_ demand: RequestDemand) throws(ServiceError) {
    guard !hasTaken else {
      hasTaken = false
      return
    }
    try admission.take(demand, now: lastRequest)
  }

  /// Answers a request that cannot be understood; it counts against the rates as any other.
  func answerMalformed(_ malformed: WireError, _ connection: TLSConnection) {
    var status = malformed.status
    do throws(ServiceError) {
      try takeRates(isAdministrator ? .administration : .read)
    } catch {
      status = error.status
    }
    let answer = Service.Answer(sequence: 0, outcome: .failure(.malformed("")))
    reply(answer, malformed.requestID, connection, status: status)
  }

  private func mayBeLarge(_ call: Call) -> Bool {
    switch call {
    case .transact, .importKeys, .admin: true
    case .fetch, .describe, .change, .list, .whoAmI: false
    }
  }

  /// Answers a fetch where it lies in its frame, if it is one and memory can answer it.
  func answerFetch(_ message: UnsafeRawBufferPointer, _ connection: TLSConnection) -> Bool {
    hasTaken = false
    guard let caller, let instance, let fetch = unsafe FetchView(message, instance: instance),
      inFlight[fetch.id] == nil, let tenant,
      let keyring = tenant.openKeyring(
        for: instance,
        notBefore: caller.notBefore,
        needing: [.read, fetch.identity.scope == .shared ? .shared : .own]
      )
    else { return false }
    do throws(ServiceError) {
      try tenant.admission.take(.read, now: lastRequest)
    } catch {
      service.calls.add(1, ordering: .relaxed)
      audit(FetchRequest(fetch), refused: error)
      reply(Service.Answer(sequence: 0, outcome: .failure(error), isAudited: true), fetch.id, connection)
      return true
    }
    let isAnswered = self.fetch(FetchRequest(fetch), keyring, connection)
    if isAnswered { service.calls.add(1, ordering: .relaxed) }
    hasTaken = !isAnswered
    return isAnswered
  }

  /// Answers a fetch from memory, decrypting straight into the output.
  ///
  /// - Returns: false where memory cannot answer.
  private func fetch(
    _ fetch: FetchRequest,
    _ keyring: TenantKeyring,
    _ connection: TLSConnection
  ) -> Bool {
    tenant?.use.note(lastRequest)
    // Strict: not before its entry is written.
    guard mayAnswerBeforeAudit else { return false }
    let (id, identity) = (fetch.id, fetch.identity)
    do throws(ServiceError) {
      let (answer, sequence) = keyring.read(identity, version: fetch.version, now: lastRequest)
      guard sequence >= fetch.minSequence else { throw .stale(sequence: sequence) }
      switch answer {
      case .needsWrappingKey: return false
      case .absent:
        ReplyEncoder.appendFrame(
          ReplyEncoder.bytes(id: id, sequence: sequence, .fetch(nil)),
          to: &connection.output
        )
        audit(fetch, version: nil, sequence)
      case .present(let identity, let key, let record, let held):
        try unsafe ReplyEncoder.appendFetch(
          id: id,
          sequence: sequence,
          type: key.type.text,
          version: record.version,
          latestVersion: key.latest.version,
          valueBytes: Int(record.length),
          to: &connection.output
        ) { room throws(ServiceError) in
          try unsafe held.open(record, identity: identity, type: key.type, into: room)
        }
        audit(fetch, version: record.version, sequence)
      }
    } catch .wrappingKeyReplaced {
      return false
    } catch {
      audit(fetch, refused: error)
      reply(Service.Answer(sequence: 0, outcome: .failure(error), isAudited: true), id, connection)
    }
    return true
  }

  /// Executes a request off the event loop; it is answered no later than its deadline.
  private func start(
    _ request: Request,
    _ caller: Caller,
    messageBytes: Int,
    _ connection: TLSConnection
  ) {
    guard let eventLoop = connection.eventLoop else { return }
    let held: ExecutionHold
    do throws(ServiceError) {
      held = try hold(request.call, caller, messageBytes)
    } catch {
      return reply(
        Service.Answer(sequence: 0, outcome: .failure(error)),
        request.id,
        connection,
        request: request
      )
    }
    let timeout = request.timeoutMilliseconds == 0 ? 30_000 : min(Int64(request.timeoutMilliseconds), 600_000)
    let deadline = RequestDeadline(
      monotonicNanoseconds() + UInt64(timeout) * 1_000_000,
      mayBeRepeated: request.idempotencyID != nil
    )
    let bound = NIOLoopBound((self, connection), eventLoop: eventLoop)
    let (id, doubt) = (request.id, request.call.doubtAtDeadline)
    started += 1
    executing += 1
    let serial = started
    let scheduled = eventLoop.scheduleTask(in: .milliseconds(timeout)) {
      let (me, connection) = bound.value
      let error: ServiceError = doubt.isLeft(at: deadline) ? .outcomeUnknown("the deadline passed") : .timeout
      // What the task comes to is audited.
      let answer = Service.Answer(sequence: 0, outcome: .failure(error), isAudited: true)
      me.finish(id, serial, answer, connection)
      me.letGoIfPossible(connection)
    }
    inFlight[id] = InFlight(serial: serial, scheduled: scheduled, deadline: deadline, doubt: doubt)
    let service = self.service
    Task {
      let answer = await service.answer(request, caller, deadline: deadline)
      held.giveBack()
      eventLoop.execute {
        let (me, connection) = bound.value
        me.executing -= 1
        me.finish(id, serial, answer, connection)
        me.letGoIfPossible(connection)
      }
    }
  }

  /// Replies, unless the deadline did: the id may be another request's by now.
  private func finish(_ id: UInt64, _ serial: UInt64, _ answer: Service.Answer, _ connection: TLSConnection) {
    guard !isClosed, let request = inFlight[id], request.serial == serial else { return }
    inFlight[id] = nil
    request.scheduled.cancel()
    reply(answer, id, connection)
    connection.flushSoon()
  }

  // MARK: Replies

  func reply(
    _ answer: Service.Answer,
    _ id: UInt64,
    _ connection: TLSConnection,
    status: Status? = nil,
    request: Request? = nil
  ) {
    switch answer.outcome {
    case .failure(let error):
      if !answer.isAudited { auditRefusal(status ?? error.status, request) }
      service.callsFailed.add(1, ordering: .relaxed)
      let bytes = ReplyEncoder.bytes(id: id, sequence: answer.sequence, status ?? error.status)
      ReplyEncoder.appendFrame(bytes, to: &connection.output)
    case .success(.fetch(.some(let key))):
      unsafe ReplyEncoder.appendFetch(
        id: id,
        sequence: answer.sequence,
        type: key.type,
        version: key.version,
        latestVersion: key.latestVersion,
        valueBytes: key.value.count,
        to: &connection.output
      ) { room in
        // SECRET: from locked memory into the output, which is wiped as it is sent.
        unsafe key.value.withUnsafeBytes { unsafe room.copyMemory(from: $0) }
      }
    case .success(let result):
      ReplyEncoder.appendFrame(
        ReplyEncoder.bytes(id: id, sequence: answer.sequence, result),
        to: &connection.output
      )
    }
  }
}

/// Whether something may have been changed though the caller is told at the deadline that it was not answered.
enum Doubt {
  /// It changes nothing.
  case never
  /// A change of keys: it has a last moment at which it can still be left undone.
  case onceExecuting
  /// Of several steps.
  case always

  func isLeft(at deadline: RequestDeadline) -> Bool {
    switch self {
    case .never: false
    case .onceExecuting: deadline.mayHaveExecuted
    case .always: true
    }
  }
}

extension Call {
  fileprivate var doubtAtDeadline: Doubt {
    switch self {
    case .change, .transact, .importKeys: return .onceExecuting
    case .fetch, .describe, .list, .whoAmI: return .never
    case .admin(let call):
      let isChange =
        switch call {
        case .tenantCreate(let call): !call.isDryRun
        case .tenantApply(let calls): calls.contains { !$0.isDryRun }
        case .tenantDisable, .tenantEnable, .instanceAdd, .instanceRevoke, .variablesSet, .rotateCMK,
          .rotateKeys,
          .tenantAccept, .tenantReload, .tenantMove, .tenantLock, .tenantUnlock, .tenantDelete,
          .tenantUndelete, .serviceReload:
          true
        case .cmk(_, let action, _, _): action != .describe
        case .restore(_, .end): true
        case .backup, .restore: false
        case .tenantList, .tenantShow, .instanceList, .variablesList, .status, .explain, .tenantReceipt: false
        }
      return isChange ? .always : .never
    }
  }
}
