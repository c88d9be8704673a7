/// Answers of AWS, and the files that its tools share.
enum AWSSeeds {
  /// Names that JSON objects are asked for.
  static let members = [
    "KeyId", "Plaintext", "CiphertextBlob", "KeyMetadata", "__type", "message", "Enabled", "n",
  ]

  static let json: [[UInt8]] = [
    #"{"KeyId":"arn:aws:kms:eu-central-1:111122223333:key/1","Plaintext":"AAECAwQF","CiphertextBlob":"AQ=="}"#,
    #"{"KeyMetadata":{"KeyId":"1","Enabled":true,"n":1700000000,"list":[1,[{}],"a"],"message":null}}"#,
    #" { "__type" : "com.amazonaws#NotFoundException", "message" : "\u00e9\n\ud83d\ude00 é" , "n" : -1.5e+3 } "#,
    "{}",
  ].map { Array($0.utf8) }

  static let envelopes: [[UInt8]] = [
    "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
  ].map { [1, 0, UInt8($0.utf8.count)] + Array($0.utf8) + [1, 2, 3, 4] }

  static let errorAnswers: [[UInt8]] = [
    "\n1f8b-request\n5\n{\"__type\":\"DisabledException\",\"message\":\"arn is disabled.\"}",
    "\n\n\n{\"__type\":\"InvalidSignatureException\",\"Message\":\"It does not match.\\n\\nThe String-to-Sign was 'x'\"}",
    "namespace#ThrottlingException:http://internal\n1\u{2028}\n600\n",
    "\n\n\n{\"__type\":\"AccessDenied\",\"message\":\"one\\u2028two\u{2029}\u{202e}three\"}",
    "\n\n\n<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>no &amp; no</Message></Error></ErrorResponse>",
  ].map { Array($0.utf8) }

  /// Elements that XML documents are asked for.
  static let elements = ["r/k", "r/s/t", "r"]

  static let xml: [[UInt8]] = [
    "<?xml version=\"1.0\"?>\n<r xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n <k>A&amp;&lt;&gt;&quot;&apos;</k><s><t>x</t></s>\n</r>\n",
    "<r><k/><s a = 'b' ><t>y</t ></s></r>",
    "<r>text</r>",
  ].map { Array($0.utf8) }

  static let profiles: [[UInt8]] = [
    "s# comment\n[default]\naws_access_key_id = AKIATEST\naws_secret_access_key=secret/of+a=test\n\n[other]\nAWS_SESSION_TOKEN = t\n",
    "c[default]\nregion = eu-central-1\ns3 =\n  max = 1\n[profile acme] ; a role\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n[sso-session x]\na = b\n",
    "s[a]\r\naws_access_key_id = x y\r\n; end", "s[\(String(repeating: "a", count: 1200))]\n",
  ].map { Array($0.utf8) }
}
