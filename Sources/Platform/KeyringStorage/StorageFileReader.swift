internal import Cryptography
public import KeyringCore

/// What a storage file holds, once all of it is verified.
public struct StorageFileContent: Sendable {
  /// The keys and wrapping keys.
  public let state: KeyringState
  /// What is remembered of requests.
  public let idempotency: IdempotencyWindow
  /// Where it stands.
  public let position: StorePosition
  /// Where the file that it replaced stood when it did; sequence 0 and a digest of zeros for a first file.
  public let replaced: StorePosition
  /// Where it stood after each batch, from that on with which it appeared.
  public let positions: [StorePosition]
  /// The HMACs of its batches.
  public let pendingAuthentications: [PendingAuthentication]
  /// Bytes that are whole batches; what is behind is a torn tail.
  public let validBytes: Int
  /// Why what is behind `validBytes` may be cut off; nil where nothing is behind.
  public let tornTail: String?

  /// True if it goes on from where another file of this keyring stood, as far as its history tells.
  public func came(from position: StorePosition) -> Bool {
    position.sequence == 0 || position == replaced || positions.contains(position)
  }
}

/// Reads a storage file, all of it, and believes none of it before it is checked. Pure: bytes in, content or an error out.
@safe
public struct StorageFileReader {
  private let bytes: UnsafeRawBufferPointer
  private let tenant: TenantName
  private var offset = 0
  private var state: KeyringState
  private var window = IdempotencyWindow()
  private var digest: Digest
  private var positions: [StorePosition] = []
  private var pending: [PendingAuthentication] = []
  /// The snapshot's, in a file that was written anew.
  private let origin: StorePosition
  /// What the file replaced; nil until its commit is read.
  private var replaced: StorePosition?
  private var isSnapshotRead = false

  /// Verifies `bytes` as the storage file of `tenant`.
  ///
  /// - Throws: `StoreError.damaged`, saying where; `.changed` where it is another tenant's; `.unavailable` where there is no memory for it.
  public static func read(_ bytes: [UInt8], tenant: TenantName) throws(StoreError) -> StorageFileContent {
    // SAFETY: the reader does not outlive the call, and what it answers is copied.
    try unsafe bytes.span.withUnsafeBytes { bytes throws(StoreError) in
      var reader = try unsafe StorageFileReader(bytes, tenant)
      return try reader.readAll()
    }
  }

  private init(_ bytes: UnsafeRawBufferPointer, _ tenant: TenantName) throws(StoreError) {
    unsafe self.bytes = bytes
    self.tenant = tenant
    guard bytes.count >= StorageFormat.headerBytes else {
      throw .damaged("the file has \(bytes.count) bytes, less than a header: it is not a storage file")
    }
    let header = unsafe Array(bytes[..<144])
    guard header.starts(with: StorageFormat.fileMagic) else {
      throw .damaged("the file is not a storage file")
    }
    let checksum = try StorageFormat.sha256(header)
    guard unsafe checksum.bytes.elementsEqual(bytes[144..<176]) else {
      throw .damaged("the file's header does not match its checksum")
    }
    guard header[8] == 0, header[9] == UInt8(StorageFormat.version) else {
      throw .damaged(
        "the file has format version \(Int(header[8]) << 8 | Int(header[9])); this server reads 1"
      )
    }
    guard let keyring = KeyringID(bytes: header[80..<96]),
      let originDigest = Digest(bytes: header[112..<144]),
      header.starts(with: StorageFormat.prefix(StorageFormat.fileMagic, tenant: tenant, keyring: keyring))
    else { throw .changed("the file is another tenant's") }
    origin = StorePosition(sequence: number(header[104..<112]), digest: originDigest)
    // Sequences count on from here: they must not overflow, and a first file has one form.
    guard origin.sequence <= UInt64(Int64.max), origin.sequence > 0 || originDigest == .zero else {
      throw .damaged("the file's header names an impossible position as the one it was made at")
    }
    replaced = origin.sequence == 0 ? origin : nil
    digest = checksum
    offset = StorageFormat.headerBytes
    // A snapshot has the sequence of what it shows.
    state = KeyringState(tenant: tenant, id: keyring, sequence: origin.sequence - min(1, origin.sequence))
  }

  private mutating func readAll() throws(StoreError) -> StorageFileContent {
    var tornTail: String?
    while unsafe offset < bytes.count {
      if let torn = try readBatch() {
        tornTail = torn
        break
      }
    }
    guard !positions.isEmpty || tornTail == nil else {
      throw .damaged(
        "what the file appeared with is damaged, which no crash does: a file appears whole"
      )
    }
    guard let replaced, let last = positions.last else {
      throw .damaged("the file does not have all batches that a file appears with")
    }
    return StorageFileContent(
      state: state,
      idempotency: window,
      position: last,
      replaced: replaced,
      positions: positions,
      pendingAuthentications: pending,
      validBytes: offset,
      tornTail: tornTail
    )
  }

  /// Reads the batch at `offset` and goes behind it.
  ///
  /// - Returns: nil; or why this, the last one, is torn as a crash tears it.
  private mutating func readBatch() throws(StoreError) -> String? {
    let rest = unsafe bytes.count - offset
    guard rest >= StorageFormat.batchHeaderBytes else {
      return try torn("the file ends inside a batch header")
    }
    let header = unsafe Array(bytes[offset..<offset + 96])
    guard header.starts(with: StorageFormat.batchMagic),
      unsafe try StorageFormat.sha256(Array(header[..<64])).bytes.elementsEqual(
        bytes[offset + 64..<offset + 96]
      )
    else { return try torn("a batch header does not match its checksum") }
    let bodyBytes = number(header[8..<16])
    guard Digest(bytes: header[32..<64]) == digest else {
      throw damaged("a batch does not continue the one before")
    }
    guard number(header[16..<24]) == state.sequence + 1 else {
      throw damaged("a batch's sequence does not follow")
    }
    guard bodyBytes <= UInt64(rest) else { return try torn("the file ends inside a batch") }
    let total = 192 + Int(bodyBytes)
    guard total <= rest else { return try torn("the file ends inside a batch") }
    guard header[28..<32].allSatisfy({ $0 == 0 }) else { throw damaged("a reserved field is not zero") }
    return try readBody(total, count: UInt32(truncatingIfNeeded: number(header[24..<28])), bodyBytes)
  }

  private mutating func readBody(_ total: Int, count: UInt32, _ bodyBytes: UInt64) throws(StoreError)
    -> String?
  {
    let end = offset + total - StorageFormat.trailerBytes
    let trailer = unsafe Array(bytes[end..<offset + total])
    let computed: Digest
    do {
      let hash = try SHA256()
      try hash.update(digest.bytes)
      try unsafe hash.update(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
      computed = StorageFormat.digest(try hash.finish())
    } catch {
      throw .unavailable("SHA-256 failed: \(error)")
    }
    guard computed.bytes == Array(trailer[..<32]), number(trailer[80..<88]) == bodyBytes,
      trailer[88...].elementsEqual(StorageFormat.trailerMagic)
    else {
      return try torn("a batch does not match its digest", within: total)
    }
    guard let wrappingKeyID = WrappingKeyID(bytes: trailer[32..<48]),
      let mac = Digest(bytes: trailer[48..<80])
    else {
      throw damaged("a trailer is malformed")
    }
    let first = state.sequence + 1
    try readCommits(from: offset + StorageFormat.batchHeaderBytes, to: end, count: count)
    guard state.wrappingKeys[wrappingKeyID] != nil else {
      throw damaged("a batch names an unknown wrapping key")
    }
    pending.append(
      PendingAuthentication(
        wrappingKeyID: wrappingKeyID,
        message: StorageFormat.authenticatedMessage(
          "keyring batch",
          tenant: tenant,
          keyring: state.id,
          sequence: first,
          count: count,
          previous: digest,
          digest: computed
        ),
        mac: mac,
        place: "batch at byte \(offset)"
      )
    )
    digest = computed
    offset += total
    guard replaced != nil else { return nil }
    positions.append(StorePosition(sequence: state.sequence, digest: digest))
    return nil
  }

  private mutating func readCommits(from start: Int, to end: Int, count: UInt32) throws(StoreError) {
    var at = start
    for _ in 0..<count {
      guard end - at >= 4 else { throw damaged("a batch has fewer commits than it says") }
      let length = Int(unsafe number(bytes[at..<at + 4]))
      guard length <= end - at - 4, length <= StorageFormat.commitBytesMax else {
        throw damaged("a commit is longer than its batch")
      }
      let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[at + 4..<at + 4 + length])
      try apply(unsafe decode(message))
      at += 4 + length
    }
    guard at == end, count > 0 else {
      throw damaged("a batch has more bytes, or fewer commits, than it says")
    }
  }

  private func decode(_ message: UnsafeRawBufferPointer) throws(StoreError) -> CommitCodec.Decoded {
    do throws(CommitCodec.DecodingError) {
      return try unsafe CommitCodec.decode(message, tenant: tenant, keyring: state.id)
    } catch {
      switch error {
      case .wrong(let error): throw damaged("a commit is wrong: \(error)")
      case .outOfMemory:
        throw .unavailable("not enough memory for a commit of \(message.count) bytes, at byte \(offset)")
      }
    }
  }

  private mutating func apply(_ decoded: CommitCodec.Decoded) throws(StoreError) {
    do {
      try follow(decoded)
    } catch {
      throw damaged("a commit is wrong: \(error)")
    }
  }

  private mutating func follow(_ decoded: CommitCodec.Decoded) throws(KeyringError) {
    switch decoded {
    case .image(let image, _):
      guard !isSnapshotRead, image.sequence == state.sequence + 1, origin.sequence > 0 else {
        throw .inconsistent("a snapshot is not the first commit of a file written anew")
      }
      isSnapshotRead = true
      state = try KeyringState(image)
      window = image.idempotency
    case .commit(let commit):
      guard origin.sequence == 0 || isSnapshotRead else {
        throw .inconsistent("a file written anew does not begin with a snapshot")
      }
      try note(commit.operations, commit.sequence)
      try state.replay(commit)
      window.insert(commit)
    }
  }

  /// The commit that says what was replaced is alone with that, and once in a file written anew.
  private mutating func note(_ operations: [Operation], _ sequence: UInt64) throws(KeyringError) {
    for operation in operations {
      guard case .replaced(let position) = operation else { continue }
      guard replaced == nil, operations.count == 1, position.sequence == sequence &- 1 else {
        throw .inconsistent("what was replaced is said twice, or of another sequence")
      }
      replaced = position
    }
  }

  // MARK: Damage

  private func damaged(_ what: String) -> StoreError { .damaged("\(what), at byte \(offset)") }

  /// Decides whether the damage at `offset` is a tail that a crash tore: then, and only then, it may be cut off.
  ///
  /// A crash leaves the file ending inside its last batch, or with sectors of that batch never written (zero). Nothing valid can lie behind.
  ///
  /// - Parameter batchBytes: of the damaged batch; nil where its header does not say, and it may have all that is left.
  private func torn(_ what: String, within batchBytes: Int? = nil) throws(StoreError) -> String {
    let isCutOff = what.hasPrefix("the file ends")
    guard isCutOff || hasZeroSector(unsafe batchBytes ?? bytes.count - offset) else { throw damaged(what) }
    guard !hasBatchHeaderBehind() else { throw damaged("\(what), and a batch lies behind it") }
    return unsafe "\(what), at byte \(offset) of \(bytes.count)"
  }

  /// True where the batch has nothing but zeros in one of its sectors. Of the first, what is before the batch was written before; of the last, what
  /// is behind the file is zeros, too. A single zero tells nothing: a batch ends in one.
  private func hasZeroSector(_ batchBytes: Int) -> Bool {
    let (size, end) = (StorageFormat.sectorBytes, offset + batchBytes)
    return stride(from: offset / size * size, to: end, by: size).contains { sector in
      let part = max(sector, offset)..<min(sector + size, end)
      return unsafe part.count > 1 && bytes[part].allSatisfy { $0 == 0 }
    }
  }

  private func hasBatchHeaderBehind() -> Bool {
    guard unsafe bytes.count - offset > 96 else { return false }
    let first = StorageFormat.batchMagic[0]
    for start in unsafe (offset + 1)...(bytes.count - 96) where unsafe bytes[start] == first {
      let header = unsafe Array(bytes[start..<start + 96])
      guard header.starts(with: StorageFormat.batchMagic) else { continue }
      do throws(StoreError) {
        if try StorageFormat.sha256(Array(header[..<64])).bytes == Array(header[64...]) { return true }
      } catch {
        return true  // cannot tell: then it is not cut off
      }
    }
    return false
  }
}

/// A big-endian number of up to 8 bytes.
func number(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
