internal import COpenSSL

/// One OSSL_PARAM that outlives the call it is made for by `withParameters`.
@safe
enum Parameter {
  case text(String, String)
  case bytes(String, UnsafeRawBufferPointer)
  case number(String, UInt64)
}

/// Lends an OSSL_PARAM array (OSSL_PARAM(3)) made of `list` to `body`; everything in it is copied and freed after.
func withParameters<R>(_ list: [Parameter], _ body: (UnsafePointer<OSSL_PARAM>?) -> R) -> R {
  // SAFETY: the builder copies what is pushed; array and builder are freed after `body`, the array's secrets cleansed first.
  guard let builder = unsafe OSSL_PARAM_BLD_new() else { preconditionFailure("out of memory") }
  defer { unsafe OSSL_PARAM_BLD_free(builder) }
  for parameter in list {
    switch parameter {
    case .text(let name, let value): unsafe OSSL_PARAM_BLD_push_utf8_string(builder, name, value, 0)
    case .bytes(let name, let value):
      unsafe OSSL_PARAM_BLD_push_octet_string(builder, name, value.baseAddress, value.count)
    case .number(let name, let value): unsafe OSSL_PARAM_BLD_push_uint64(builder, name, value)
    }
  }
  let parameters = unsafe OSSL_PARAM_BLD_to_param(builder)
  defer { unsafe OSSL_PARAM_free(parameters) }
  return unsafe body(parameters)
}
