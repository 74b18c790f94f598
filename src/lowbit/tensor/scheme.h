// QuantScheme: what the stored codes of a weight mean. No bytes, no device.
//
//   w[n][k] = scale[n / group_rows][k / group_size] * (decode(q[n][k]) - zero[...])
#pragma once

#include <cstdint>
#include <string>

namespace lowbit {

enum class Code : uint8_t {
  kF32,  // dense: the codes are the weights; no scales
  kF16,
  kBF16,
  kInt,    // unsigned fields of `bits` bits
  kIq4Nl,  // 4-bit index into ggml's non-linear table
};

enum class Zero : uint8_t {
  kNone,    // kInt: w = scale * (q - 2^(bits-1)); tables: w = scale * table[q]
  kInt,     // w = scale * (q - zero), zero an unsigned integer
  kOffset,  // w = scale * q + offset, for formats whose zero point is a float
};

struct QuantScheme {
  Code code = Code::kF32;
  int bits = 32;           // width of one code
  int group_rows = 1;      // rows that share a scale
  int64_t group_size = 0;  // columns that share a scale; 0 for dense; cols for one per row
  Zero zero = Zero::kNone;

  bool dense() const { return code == Code::kF32 || code == Code::kF16 || code == Code::kBF16; }
  bool operator==(const QuantScheme&) const = default;
};

constexpr QuantScheme dense_scheme(Code code) {
  return QuantScheme{code, code == Code::kF32 ? 32 : 16, 1, 0, Zero::kNone};
}
constexpr QuantScheme int_scheme(int bits, int64_t group_size, Zero zero = Zero::kNone) {
  return QuantScheme{Code::kInt, bits, 1, group_size, zero};
}

// "f16", "w4_g64", "w4_g32_zero", "w4_g32_offset", "w8_g576", "iq4nl_g32".
std::string name_of(const QuantScheme& scheme);

// ggml's IQ4_NL table.
inline constexpr int8_t kIq4NlTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace lowbit
