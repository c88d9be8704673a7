internal import CMessages
internal import CProtobufC
internal import SecureMemory

/// A C string of an unpacked message, copied.
func text(_ string: UnsafeMutablePointer<CChar>?) -> String {
  // SAFETY: protobuf-c's strings end in NUL and live as long as the arena, which outlives the call.
  guard let string = unsafe string else { return "" }
  return unsafe String(cString: string)
}

/// Bytes of an unpacked message, copied.
func array(_ data: ProtobufCBinaryData) -> [UInt8] {
  // SAFETY: `data` has `len` bytes and lives as long as the arena.
  guard unsafe data.len > 0 else { return [] }
  return unsafe Array(UnsafeBufferPointer(start: data.data, count: data.len))
}

/// Secret bytes of an unpacked message, copied into locked memory.
func secret(_ data: ProtobufCBinaryData) throws(SecureMemoryError) -> Secret {
  // SAFETY: `data` has `len` bytes and lives as long as the arena.
  try unsafe Secret(copying: UnsafeRawBufferPointer(start: data.data, count: data.len))
}
