// SHA-256 (FIPS 180-4), to compare with golden hashes of data that cannot be kept.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

namespace lowbit::test {

// Hexadecimal, 64 digits.
inline std::string sha256(std::string data) {
  // The first 32 bits of the fractions of the cube roots of the first 64 primes, and of the square
  // roots of the first 8.
  std::array<uint32_t, 64> k{};
  std::array<uint32_t, 8> h{};
  const auto fraction = [](long double x) {
    return static_cast<uint32_t>((x - std::floor(x)) * 4294967296.0L);
  };
  for (uint32_t n = 2, count = 0; count < 64; ++n) {
    bool prime = true;
    for (uint32_t d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
    if (!prime) continue;
    k[count] = fraction(cbrtl(n));
    if (count < 8) h[count] = fraction(sqrtl(n));
    ++count;
  }
  const uint64_t bits = uint64_t{data.size()} * 8;
  data += '\x80';
  while (data.size() % 64 != 56) data += '\0';
  for (int shift = 56; shift >= 0; shift -= 8) data += static_cast<char>(bits >> shift);
  for (size_t block = 0; block < data.size(); block += 64) {
    std::array<uint32_t, 64> w{};
    for (size_t i = 0; i < 64; ++i) {
      w[i / 4] = i / 4 < 16 ? w[i / 4] << 8 | static_cast<uint8_t>(data[block + i]) : 0;
    }
    for (size_t i = 16; i < 64; ++i) {
      const uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] +
             (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
    }
    auto s = h;
    for (size_t i = 0; i < 64; ++i) {
      const uint32_t e = s[4], a = s[0];
      const uint32_t t1 = s[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                          ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
      const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) +
                          ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
      s = {t1 + t2, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
    }
    for (size_t i = 0; i < 8; ++i) h[i] += s[i];
  }
  std::string hex;
  for (const uint32_t word : h) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
  }
  return hex;
}

}  // namespace lowbit::test
