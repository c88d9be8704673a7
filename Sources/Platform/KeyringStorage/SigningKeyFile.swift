public import Cryptography
internal import SecureMemory

/// A key that signs, in a file of its own, and its public part beside it for whoever checks.
public enum SigningKeyFile {
  /// Why there is none that can be used.
  public enum Failure: Error, CustomStringConvertible {
    /// The files are not what they should be.
    case unusable(String)
    /// A step failed.
    case step(any Error)

    /// For the log.
    public var description: String {
      switch self {
      case .unusable(let why): why
      case .step(let error): "\(error)"
      }
    }
  }

  /// Reads the key, or makes it where there is none.
  ///
  /// - Parameters:
  ///   - name: of the private key, PKCS #8 in PEM, mode 0600.
  ///   - publicName: of the public one, SubjectPublicKeyInfo in PEM.
  ///   - mayMake: throws where a new key is not to be made.
  public static func load(
    _ name: String,
    public publicName: String,
    in directory: DirectoryDescriptor,
    mayMake: () throws -> Void = {}
  ) throws(Failure) -> SigningKey {
    do {
      try directory.removeLeftovers(of: [name, publicName])
      let signer: SigningKey
      if try directory.status(of: name) != nil {
        signer = try SigningKey(privatePEM: directory.readSecret(name, bytesMax: 4096))
      } else {
        try mayMake()
        let made = try SigningKey.generate()
        try directory.writeSecret(name, made.privatePEM)
        signer = made.key
      }
      let pem = Array(signer.verifier.pem.utf8)
      if try directory.status(of: publicName) == nil {
        try AtomicFile.replace(publicName, in: directory, with: [pem])
      } else if try directory.readFile(publicName, bytesMax: 4096, requirePrivate: false) != pem {
        throw Failure.unusable("\(directory.path)/\(publicName) is not of \(name)")
      }
      return signer
    } catch let failure as Failure {
      throw failure
    } catch {
      throw .step(error)
    }
  }
}
