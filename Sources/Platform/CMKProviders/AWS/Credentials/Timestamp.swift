/// `2026-10-05T07:08:09Z`, perhaps with a fraction of the second, as AWS says when credentials expire (RFC 3339, UTC only), in Unix
/// milliseconds; nil for anything else.
func unixMilliseconds(_ text: String) -> UInt64? {
  let bytes = Array(text.utf8)
  guard (20...30).contains(bytes.count), bytes.last == UInt8(ascii: "Z") else { return nil }
  let marks: [(Int, Character)] = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")]
  guard marks.allSatisfy({ bytes[$0.0] == $0.1.asciiValue }),
    let year = number(bytes[0..<4]), let month = number(bytes[5..<7]), let day = number(bytes[8..<10]),
    let hour = number(bytes[11..<13]), let minute = number(bytes[14..<16]),
    let second = number(bytes[17..<19])
  else { return nil }
  let fraction = bytes[19..<bytes.count - 1]
  guard fraction.isEmpty || fraction.first == UInt8(ascii: ".") && number(fraction.dropFirst()) != nil,
    year >= 1970, (1...12).contains(month), (1...daysOfMonth(month, of: year)).contains(day), hour < 24,
    minute < 60, second < 60
  else { return nil }
  let days = daysBefore(year: year) + (1..<month).reduce(0) { $0 + daysOfMonth($1, of: year) } + day - 1
  return UInt64(((days * 24 + hour) * 60 + minute) * 60 + second) * 1000
}

private func number(_ digits: ArraySlice<UInt8>) -> Int? {
  guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
  return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
}

private func isLeap(_ year: Int) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

private func daysOfMonth(_ month: Int, of year: Int) -> Int {
  switch month {
  case 2: isLeap(year) ? 29 : 28
  case 4, 6, 9, 11: 30
  default: 31
  }
}

/// Days from 1970-01-01 to the first of January of a year.
private func daysBefore(year: Int) -> Int {
  (1970..<year).reduce(0) { $0 + (isLeap($1) ? 366 : 365) }
}
