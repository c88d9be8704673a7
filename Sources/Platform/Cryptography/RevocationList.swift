internal import COpenSSL

extension CertificateAuthority {
  /// Writes the CA's certificate revocation list (RFC 5280 section 5): what is on the present one, and these certificates.
  ///
  /// - Parameters:
  ///   - certificatesPEM: of this CA; one that is on the list already stays there.
  ///   - presentPEM: the list until now; nil where there is none.
  ///   - days: until its nextUpdate, after which it counts no more.
  /// - Returns: the new list, PEM; its number is one more than the present one's.
  /// - Throws: `CryptographyError.malformed` for a certificate or list that is not of this CA.
  public func revoke(
    _ certificatesPEM: [String],
    present presentPEM: String? = nil,
    days: Int
  ) throws(CryptographyError) -> String {
    guard (1...36_500).contains(days) else {
      throw .invalidLength("a revocation list is valid for 1 to 36,500 days")
    }
    let list: OpaquePointer
    if let presentPEM { unsafe list = try self.list(presentPEM) } else { unsafe list = try emptyList() }
    defer { unsafe X509_CRL_free(list) }
    for text in certificatesPEM {
      let revoked = unsafe try leaf(text)
      defer { unsafe X509_free(revoked) }
      try unsafe add(revoked, to: list)
    }
    try unsafe renew(list, days: days)
    return try unsafe pem(list: list)
  }

  // SAFETY (all of this file): BIOs read from memory that outlives them; what is added to a list is owned by it, everything else is freed
  // where it was made; lists and certificates are live until their owner here frees them.

  private func emptyList() throws(CryptographyError) -> OpaquePointer {
    ERR_clear_error()
    guard let list = unsafe X509_CRL_new() else { throw .drained("revocation list") }
    guard unsafe X509_CRL_set_version(list, 1) == 1,  // v2
      unsafe X509_CRL_set_issuer_name(list, X509_get_subject_name(certificate)) == 1
    else {
      unsafe X509_CRL_free(list)
      throw .drained("revocation list")
    }
    return unsafe list
  }

  private func list(_ text: String) throws(CryptographyError) -> OpaquePointer {
    ERR_clear_error()
    let read = unsafe Array(text.utf8).withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_X509_CRL(bio, nil, nil, nil)
    }
    ERR_clear_error()
    guard let list = unsafe read, unsafe X509_CRL_verify(list, key) == 1 else {
      unsafe X509_CRL_free(read)
      throw .malformed("the present revocation list is not one of this CA")
    }
    return unsafe list
  }

  private func leaf(_ text: String) throws(CryptographyError) -> OpaquePointer {
    ERR_clear_error()
    let read = unsafe Array(text.utf8).withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_X509(bio, nil, nil, nil)
    }
    ERR_clear_error()
    guard let leaf = unsafe read else { throw .malformed("not a certificate in PEM") }
    guard unsafe X509_verify(leaf, key) == 1 else {
      unsafe X509_free(leaf)
      throw .malformed("the certificate is not one that this CA issued")
    }
    return unsafe leaf
  }

  private func add(_ revoked: OpaquePointer, to list: OpaquePointer) throws(CryptographyError) {
    ERR_clear_error()
    let serial = unsafe X509_get0_serialNumber(revoked)
    var known: OpaquePointer?
    if unsafe X509_CRL_get0_by_serial(list, &known, UnsafeMutablePointer(mutating: serial)) == 1 { return }
    guard let entry = unsafe X509_REVOKED_new() else { throw .drained("revocation") }
    guard let now = unsafe X509_gmtime_adj(nil, 0) else {
      unsafe X509_REVOKED_free(entry)
      throw .drained("revocation")
    }
    defer { unsafe ASN1_TIME_free(now) }
    guard unsafe X509_REVOKED_set_serialNumber(entry, UnsafeMutablePointer(mutating: serial)) == 1,
      unsafe X509_REVOKED_set_revocationDate(entry, now) == 1, unsafe X509_CRL_add0_revoked(list, entry) == 1
    else {
      unsafe X509_REVOKED_free(entry)
      throw .drained("revocation")
    }
  }

  /// Sets times and number anew, and signs.
  private func renew(_ list: OpaquePointer, days: Int) throws(CryptographyError) {
    ERR_clear_error()
    // Five minutes before now: a list that is not valid yet to a server whose clock is behind would be of no use to it.
    guard let from = unsafe X509_gmtime_adj(nil, -300),
      let to = unsafe X509_time_adj_ex(nil, Int32(days), 0, nil),
      let number = unsafe ASN1_INTEGER_new()
    else { throw .drained("revocation list") }
    defer {
      unsafe ASN1_TIME_free(from)
      unsafe ASN1_TIME_free(to)
      unsafe ASN1_INTEGER_free(number)
    }
    var last: Int64 = 0
    if let known = unsafe X509_CRL_get_ext_d2i(list, NID_crl_number, nil, nil) {
      let known = unsafe known.assumingMemoryBound(to: ASN1_INTEGER.self)
      unsafe ASN1_INTEGER_get_int64(&last, known)
      unsafe ASN1_INTEGER_free(known)
    }
    try unsafe identifyIssuer(of: list)
    let replace: UInt = 2  // X509V3_ADD_REPLACE
    guard unsafe X509_CRL_set1_lastUpdate(list, from) == 1, unsafe X509_CRL_set1_nextUpdate(list, to) == 1,
      unsafe ASN1_INTEGER_set_int64(number, last + 1) == 1,
      unsafe X509_CRL_add1_ext_i2d(list, NID_crl_number, number, 0, replace) == 1,
      unsafe X509_CRL_sort(list) == 1, unsafe X509_CRL_sign(list, key, EVP_sha256()) > 0
    else { throw .drained("revocation list") }
  }

  /// Says by which key it is signed, so that the lists of two CAs of one name, of which one comes after the other, are told apart.
  private func identifyIssuer(of list: OpaquePointer) throws(CryptographyError) {
    guard unsafe X509_CRL_get_ext_by_NID(list, NID_authority_key_identifier, -1) < 0 else { return }
    var context = unsafe X509V3_CTX()
    unsafe keyring_X509V3_set_ctx_nodb(&context)
    unsafe X509V3_set_ctx(&context, certificate, nil, nil, list, 0)
    guard let made = unsafe X509V3_EXT_conf_nid(nil, &context, NID_authority_key_identifier, "keyid:always")
    else { throw .drained("revocation list") }
    defer { unsafe X509_EXTENSION_free(made) }
    guard unsafe X509_CRL_add_ext(list, made, -1) == 1 else { throw .drained("revocation list") }
  }

  private func pem(list: OpaquePointer) throws(CryptographyError) -> String {
    guard let bio = unsafe BIO_new(BIO_s_mem()) else { throw .drained("PEM") }
    defer { unsafe BIO_free(bio) }
    guard unsafe PEM_write_bio_X509_CRL(bio, list) == 1 else { throw .drained("PEM") }
    var data: UnsafeMutablePointer<CChar>?
    let count = unsafe keyring_BIO_get_mem_data(bio, &data)
    return unsafe String(decoding: UnsafeRawBufferPointer(start: data, count: count), as: UTF8.self)
  }
}
