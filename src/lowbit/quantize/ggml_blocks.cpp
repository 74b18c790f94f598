#include "lowbit/quantize/ggml_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/quantize/line_fit.h"
#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int kBlock = 32;

// Stores value as fp16; false if it became infinite.
bool store_half(float value, uint8_t* out) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(out, &half, 2);
  return (half & 0x7c00u) != 0x7c00u;
}

// 1 / d, and 0 where that is not finite: fp16 stores such a d as 0, so no code matters.
float reciprocal(float d) {
  const float inverse = 1.f / d;
  return std::isfinite(inverse) ? inverse : 0.f;
}

// Byte j holds the low four bits of element j in its low nibble and those of element j + 16 in its
// high nibble.
void store_nibbles(const int (&codes)[kBlock], uint8_t* out) {
  for (int j = 0; j < kBlock / 2; ++j) {
    out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + kBlock / 2] & 15) << 4);
  }
}

// Bit j is the fifth of element j.
void store_fifth_bits(const int (&codes)[kBlock], uint8_t* out) {
  uint32_t bits = 0;
  for (int j = 0; j < kBlock; ++j) bits |= static_cast<uint32_t>(codes[j] >> 4 & 1) << j;
  std::memcpy(out, &bits, 4);
}

// d = (the weight of largest magnitude) / -half, w = d * (q - half). The codes come from the d that
// has not been rounded to fp16 yet, here and below: so does ggml.
float symmetric_codes(const float* x, int half, int (&codes)[kBlock]) {
  float extreme = 0;
  for (int j = 0; j < kBlock; ++j) {
    if (std::fabs(x[j]) > std::fabs(extreme)) extreme = x[j];
  }
  const float d = extreme / static_cast<float>(-half);
  const float inverse = reciprocal(d);
  for (int j = 0; j < kBlock; ++j) {
    codes[j] = std::min(2 * half - 1,
                        static_cast<int>(x[j] * inverse + (static_cast<float>(half) + 0.5f)));
  }
  return d;
}

// w = d * q + m, m the smallest weight. False if d is not finite.
bool affine_codes(const float* x, int largest, int (&codes)[kBlock], float& d, float& m) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  m = *low;
  d = (*high - m) / static_cast<float>(largest);
  if (!std::isfinite(d)) return false;
  const float inverse = reciprocal(d);
  for (int j = 0; j < kBlock; ++j) {
    codes[j] = std::min(largest, static_cast<int>((x[j] - m) * inverse + 0.5f));
  }
  return true;
}

float searched_symmetric_codes(const float* x, int half, int (&codes)[kBlock]) {
  const float plain = symmetric_codes(x, half, codes);
  const LineGrid grid{-half, half - 1, Minimum::kZero};
  const Line line = fit_half_line(x, kBlock, grid, {plain, 0}, codes);
  for (int& code : codes) code += half;
  return line.scale;
}

bool searched_affine_codes(const float* x, int largest, int (&codes)[kBlock], float& d, float& m) {
  if (!affine_codes(x, largest, codes, d, m)) return false;
  const LineGrid grid{0, largest, Minimum::kAny};
  const Line line = fit_half_line(x, kBlock, grid, {d, -m}, codes);
  d = line.scale;
  m = -line.minimum;
  return true;
}

// A block's codes, d, and m where the type has it.
bool put_q4_0(const int (&codes)[kBlock], float d, uint8_t* out) {
  store_nibbles(codes, out + 2);
  return store_half(d, out);
}

bool put_q5_0(const int (&codes)[kBlock], float d, uint8_t* out) {
  store_fifth_bits(codes, out + 2);
  store_nibbles(codes, out + 6);
  return store_half(d, out);
}

bool put_q8_0(const int (&codes)[kBlock], float d, uint8_t* out) {
  for (int j = 0; j < kBlock; ++j) out[2 + j] = static_cast<uint8_t>(codes[j]);
  return store_half(d, out);
}

bool put_q4_1(const int (&codes)[kBlock], float d, float m, uint8_t* out) {
  store_nibbles(codes, out + 4);
  const bool scale_fits = store_half(d, out);
  return store_half(m, out + 2) && scale_fits;
}

bool put_q5_1(const int (&codes)[kBlock], float d, float m, uint8_t* out) {
  store_fifth_bits(codes, out + 4);
  store_nibbles(codes, out + 8);
  const bool scale_fits = store_half(d, out);
  return store_half(m, out + 2) && scale_fits;
}

constexpr auto kPlainSymmetric = symmetric_codes, kSearchedSymmetric = searched_symmetric_codes;
constexpr auto kPlainAffine = affine_codes, kSearchedAffine = searched_affine_codes;

template <auto kCodes>
bool q4_0(const float* x, uint8_t* out) {
  int codes[kBlock];
  const float d = kCodes(x, 8, codes);
  return put_q4_0(codes, d, out);
}

template <auto kCodes>
bool q5_0(const float* x, uint8_t* out) {
  int codes[kBlock];
  const float d = kCodes(x, 16, codes);
  return put_q5_0(codes, d, out);
}

template <auto kCodes>
bool q4_1(const float* x, uint8_t* out) {
  int codes[kBlock];
  float d, m;
  return kCodes(x, 15, codes, d, m) && put_q4_1(codes, d, m, out);
}

template <auto kCodes>
bool q5_1(const float* x, uint8_t* out) {
  int codes[kBlock];
  float d, m;
  return kCodes(x, 31, codes, d, m) && put_q5_1(codes, d, m, out);
}

// w = d * q, q signed, halves away from zero.
bool q8_0(const float* x, uint8_t* out) {
  float largest = 0;
  for (int j = 0; j < kBlock; ++j) largest = std::max(largest, std::fabs(x[j]));
  const float d = largest / 127.f;
  const float inverse = reciprocal(d);
  int codes[kBlock];
  for (int j = 0; j < kBlock; ++j) codes[j] = static_cast<int>(std::round(x[j] * inverse));
  return put_q8_0(codes, d, out);
}

struct IntegerType {
  const char* name;
  int bits;
  bool minimum;  // a block has one
  int64_t bytes;
};
constexpr IntegerType kIntegerTypes[] = {
    {"Q4_0", 4, false, 18}, {"Q4_1", 4, true, 20},  {"Q5_0", 5, false, 22},
    {"Q5_1", 5, true, 24},  {"Q8_0", 8, false, 34},
};

const IntegerType* integer_type_of(const QuantScheme& scheme) {
  if (scheme.code != Code::kInt || scheme.group_size != kBlock || scheme.group_rows != 1 ||
      scheme.scale_form != ScaleForm::kFloat) {
    return nullptr;
  }
  for (const IntegerType& type : kIntegerTypes) {
    if (type.bits == scheme.bits && type.minimum == (scheme.zero != Zero::kNone)) return &type;
  }
  return nullptr;
}

// The weight of code 0 of a group.
float minimum_of(const QTensor& weight, int64_t group) {
  const auto i = static_cast<size_t>(group);
  if (weight.scheme.zero == Zero::kOffset) return weight.offsets[i];
  return -weight.scales[i] * static_cast<float>(weight.zeros[i]);
}

bool put_block(const IntegerType& type, const int (&codes)[kBlock], float d, float m,
               uint8_t* out) {
  if (type.minimum) return type.bits == 4 ? put_q4_1(codes, d, m, out) : put_q5_1(codes, d, m, out);
  if (type.bits == 8) return put_q8_0(codes, d, out);
  return type.bits == 4 ? put_q4_0(codes, d, out) : put_q5_0(codes, d, out);
}

// -1, 0 or 1 plus 1, halves away from zero; returns d, the largest magnitude.
template <int kCount>
float ternary_digits(const float* x, int (&digits)[kCount]) {
  float d = 0;
  for (int i = 0; i < kCount; ++i) d = std::max(d, std::fabs(x[i]));
  const float inverse = reciprocal(d);
  for (int i = 0; i < kCount; ++i) digits[i] = static_cast<int>(std::lround(x[i] * inverse)) + 1;
  return d;
}

// d, then two bits a weight, in order.
bool q2_0(const float* x, uint8_t* out) {
  int digits[64];
  const float d = ternary_digits(x, digits);
  std::memset(out + 2, 0, 16);
  for (int i = 0; i < 64; ++i) {
    out[2 + i / 4] = static_cast<uint8_t>(out[2 + i / 4] | digits[i] << (i % 4 * 2));
  }
  return store_half(d, out);
}

// Of 128 weights in 32 bytes, run r of 32 takes bits 2 * r; then d.
bool tq2_0(const float* x, uint8_t* out) {
  int digits[256];
  const float d = ternary_digits(x, digits);
  std::memset(out, 0, 64);
  for (int i = 0; i < 256; ++i) {
    uint8_t& byte = out[i / 128 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte | digits[i] << (i % 128 / 32 * 2));
  }
  return store_half(d, out + 64);
}

// Five digits to base 3 as a fraction of 256, rounded up, so that multiplying by 3 in 8 bits brings
// digit after digit to the top, the first first.
uint8_t five_digits(const int* digits, int stride, int count) {
  int value = 0;
  for (int n = 0; n < 5; ++n) value = value * 3 + (n < count ? digits[n * stride] : 0);
  return static_cast<uint8_t>((value * 256 + 242) / 243);
}

// 32 bytes of weights i, i + 32, ... i + 128; 16 bytes of 80 more, 16 apart; 4 bytes of the last
// 16, 4 apart and without a fifth; d.
bool tq1_0(const float* x, uint8_t* out) {
  int digits[256];
  const float d = ternary_digits(x, digits);
  for (int i = 0; i < 32; ++i) out[i] = five_digits(digits + i, 32, 5);
  for (int i = 0; i < 16; ++i) out[32 + i] = five_digits(digits + 160 + i, 16, 5);
  for (int i = 0; i < 4; ++i) out[48 + i] = five_digits(digits + 240 + i, 4, 4);
  return store_half(d, out + 52);
}

// d, then a bit a weight, in order: set for d, clear for -d.
bool q1_0(const float* x, uint8_t* out) {
  constexpr int kCount = 128;
  float sum = 0;
  std::memset(out + 2, 0, kCount / 8);
  for (int i = 0; i < kCount; ++i) {
    sum += std::fabs(x[i]);
    out[2 + i / 8] = static_cast<uint8_t>(out[2 + i / 8] | (x[i] >= 0) << (i % 8));
  }
  return store_half(sum / kCount, out);
}

template <bool (*kQuantize)(const float*, uint8_t*), int kElems, int kBytes>
bool encode_blocks(std::span<const float> row, uint8_t* out) {
  bool fits = true;
  for (size_t i = 0; i < row.size() / kElems; ++i) {
    fits &= kQuantize(row.data() + i * kElems, out + i * kBytes);
  }
  return fits;
}

}  // namespace

const char* ggml_type_of(const QuantScheme& scheme) {
  const IntegerType* type = integer_type_of(scheme);
  return type == nullptr ? nullptr : type->name;
}

bool store_codes(const QTensor& weight, int64_t row, uint8_t* out) {
  const IntegerType& type = *integer_type_of(weight.scheme);
  const uint8_t* stream = weight.codes.data + row * weight.row_bytes();
  const int center = type.bits == 8 ? 128 : 0;  // only Q8_0 stores signed integers
  bool fits = true;
  for (int64_t block = 0; block < weight.groups(); ++block, out += type.bytes) {
    const int64_t group = row * weight.groups() + block;
    int codes[kBlock];
    for (int j = 0; j < kBlock; ++j) {
      codes[j] = static_cast<int>(unpack(stream, block * kBlock + j, type.bits)) - center;
    }
    const float minimum = type.minimum ? minimum_of(weight, group) : 0;
    fits = put_block(type, codes, weight.scales[static_cast<size_t>(group)], minimum, out) && fits;
  }
  return fits;
}

bool encode_q4_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q4_0<kPlainSymmetric>, kBlock, 18>(row, out);
}
bool search_q4_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q4_0<kSearchedSymmetric>, kBlock, 18>(row, out);
}
bool encode_q4_1(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q4_1<kPlainAffine>, kBlock, 20>(row, out);
}
bool search_q4_1(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q4_1<kSearchedAffine>, kBlock, 20>(row, out);
}
bool encode_q5_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q5_0<kPlainSymmetric>, kBlock, 22>(row, out);
}
bool search_q5_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q5_0<kSearchedSymmetric>, kBlock, 22>(row, out);
}
bool encode_q5_1(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q5_1<kPlainAffine>, kBlock, 24>(row, out);
}
bool search_q5_1(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q5_1<kSearchedAffine>, kBlock, 24>(row, out);
}
bool encode_q8_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q8_0, kBlock, 34>(row, out);
}
bool encode_q2_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q2_0, 64, 18>(row, out);
}
bool encode_tq1_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<tq1_0, 256, 54>(row, out);
}
bool encode_tq2_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<tq2_0, 256, 66>(row, out);
}
bool encode_q1_0(std::span<const float> row, uint8_t* out) {
  return encode_blocks<q1_0, 128, 18>(row, out);
}

}  // namespace lowbit
