import HTTPTransport
import Testing

@Suite struct HTTPRequestTests {
  @Test func aRequestHasTheLimitsOfAKMSCall() {
    let request = HTTPRequest(.post, "https://kms.eu-central-1.amazonaws.com/")
    #expect(request.connectTimeoutMilliseconds == 1000)
    #expect(request.timeoutMilliseconds == 3000)
    #expect(request.scheme == .secure)
  }
}
