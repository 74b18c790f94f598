// QuantScheme: what the stored codes of a weight mean, and how precisely it wants its inputs. No
// bytes, no device.
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
  kInt,  // unsigned fields of `bits` bits
  // Tables of 16 (tensor/codebook.h):
  kIq4Nl,  // ggml's non-linear table
  kNf4,    // bitsandbytes' NormalFloat
  kFp4,    // bitsandbytes' FP4
  kE2M1,   // the float of MXFP4 and NVFP4
  kE4M3,   // 8-bit float
};

enum class Zero : uint8_t {
  kNone,    // kInt: w = scale * (q - 2^(bits-1)); tables: w = scale * table[q]
  kInt,     // w = scale * (q - zero), zero an unsigned integer
  kOffset,  // w = scale * q + offset, for formats whose zero point is a float
};

// What the values of the scales are limited to, because of how formats store them.
enum class ScaleForm : uint8_t {
  kFloat,   // 16 or 32-bit floats
  kE8M0,    // powers of two in 8 bits (MX)
  kE4M3,    // 8-bit floats divided by one fp32 of the whole tensor (NVFP4)
  kNested,  // themselves quantized to 8 bits (bitsandbytes' double quantization)
};

// As a request that is not of a weight yet, group_rows and group_size may be 0: all rows, all
// columns. for_shape() fills them in.
struct QuantScheme {
  Code code = Code::kF32;
  int bits = 32;           // width of one code
  int group_rows = 1;      // rows that share a scale
  int64_t group_size = 0;  // columns that share a scale; 0 for dense; cols for one per row
  Zero zero = Zero::kNone;
  ScaleForm scale_form = ScaleForm::kFloat;
  // Inputs are rounded, token by token (tensor/input_codes.h), before they are multiplied: to whole
  // numbers of so many bits (kInt: W8A8, W4A8, W4A4) or 8-bit floats (kE4M3: 8). 0: they are not.
  int input_bits = 0;

  constexpr bool dense() const {
    return code == Code::kF32 || code == Code::kF16 || code == Code::kBF16;
  }
  bool operator==(const QuantScheme&) const = default;
};

constexpr QuantScheme dense_scheme(Code code) {
  return QuantScheme{code, code == Code::kF32 ? 32 : 16, 1, 0, Zero::kNone};
}
constexpr QuantScheme int_scheme(int bits, int64_t group_size, Zero zero = Zero::kNone) {
  return QuantScheme{Code::kInt, bits, 1, group_size, zero};
}

constexpr QuantScheme table_scheme(Code code, int64_t group_size,
                                   ScaleForm scale_form = ScaleForm::kFloat) {
  return QuantScheme{code, 4, 1, group_size, Zero::kNone, scale_form};
}
constexpr QuantScheme fp8_scheme(int group_rows, int64_t group_size,
                                 ScaleForm scale_form = ScaleForm::kFloat) {
  return QuantScheme{Code::kE4M3, 8, group_rows, group_size, Zero::kNone, scale_form};
}

// The scheme with group_rows or group_size 0 replaced by the number of rows or columns.
constexpr QuantScheme for_shape(QuantScheme scheme, int64_t rows, int64_t cols) {
  if (scheme.dense()) return scheme;
  if (scheme.group_rows == 0) scheme.group_rows = static_cast<int>(rows);
  if (scheme.group_size == 0) scheme.group_size = cols;
  return scheme;
}

// "f16", "w4_g64", "w4_g32_zero", "w4_g32_offset", "w8_g576", "iq4nl_g32", "nf4_g64_nested",
// "fp8_g128_r128", "mxfp4_g32", "nvfp4_g16", "w8_g576_a8".
std::string name_of(const QuantScheme& scheme);

// ggml's IQ4_NL table.
inline constexpr int8_t kIq4NlTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace lowbit
