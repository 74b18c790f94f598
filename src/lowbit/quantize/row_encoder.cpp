#include "lowbit/quantize/row_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

constexpr int kBlock = 32;

// Stores value as fp16; false if it became infinite.
bool store_half(float value, uint8_t* out) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(out, &half, 2);
  return (half & 0x7c00u) != 0x7c00u;
}

bool encode_f32(std::span<const float> row, uint8_t* out) {
  std::memcpy(out, row.data(), row.size_bytes());
  return true;
}

bool encode_f16(std::span<const float> row, uint8_t* out) {
  bool fits = true;
  for (size_t i = 0; i < row.size(); ++i) fits &= store_half(row[i], out + 2 * i);
  return fits;
}

bool encode_bf16(std::span<const float> row, uint8_t* out) {
  bool fits = true;
  for (size_t i = 0; i < row.size(); ++i) {
    const uint16_t half = f32_to_bf16(row[i]);
    std::memcpy(out + 2 * i, &half, 2);
    fits &= (half & 0x7f80u) != 0x7f80u;
  }
  return fits;
}

// 1 / d, and 0 where that is not finite: fp16 stores such a d as 0, so no code matters.
float reciprocal(float d) {
  const float inverse = 1.f / d;
  return std::isfinite(inverse) ? inverse : 0.f;
}

// Byte j holds element j in its low nibble and element j + 16 in its high nibble.
template <typename CodeOf>
void store_nibbles(const float* x, uint8_t* out, CodeOf code_of) {
  for (int j = 0; j < kBlock / 2; ++j) {
    out[j] = static_cast<uint8_t>(code_of(x[j]) | code_of(x[j + kBlock / 2]) << 4);
  }
}

// d = (the weight of largest magnitude) / -8, w = d * (q - 8). The codes come from the d that has
// not been rounded to fp16 yet, here and below: so does ggml.
bool q4_0(const float* x, uint8_t* out) {
  float extreme = 0;
  for (int j = 0; j < kBlock; ++j) {
    if (std::fabs(x[j]) > std::fabs(extreme)) extreme = x[j];
  }
  const float d = extreme / -8.f;
  const float inverse = reciprocal(d);
  store_nibbles(x, out + 2,
                [&](float w) { return std::min(15, static_cast<int>(w * inverse + 8.5f)); });
  return store_half(d, out);
}

// w = d * q + m, m the smallest weight.
bool q4_1(const float* x, uint8_t* out) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float m = *low;
  const float d = (*high - m) / 15.f;
  if (!std::isfinite(d)) return false;
  const float inverse = reciprocal(d);
  store_nibbles(x, out + 4,
                [&](float w) { return std::min(15, static_cast<int>((w - m) * inverse + 0.5f)); });
  const bool scale_fits = store_half(d, out);
  return store_half(m, out + 2) && scale_fits;
}

// w = d * q, q signed, halves away from zero.
bool q8_0(const float* x, uint8_t* out) {
  float largest = 0;
  for (int j = 0; j < kBlock; ++j) largest = std::max(largest, std::fabs(x[j]));
  const float d = largest / 127.f;
  const float inverse = reciprocal(d);
  for (int j = 0; j < kBlock; ++j) {
    out[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[j] * inverse)));
  }
  return store_half(d, out);
}

template <bool (*kQuantize)(const float*, uint8_t*), int kBytes>
bool encode_blocks(std::span<const float> row, uint8_t* out) {
  bool fits = true;
  for (size_t i = 0; i < row.size() / kBlock; ++i) {
    fits &= kQuantize(row.data() + i * kBlock, out + i * kBytes);
  }
  return fits;
}

constexpr RowEncoder kEncoders[] = {
    {"F32", 1, 4, encode_f32},
    {"F16", 1, 2, encode_f16},
    {"BF16", 1, 2, encode_bf16},
    {"Q4_0", kBlock, 18, encode_blocks<q4_0, 18>},
    {"Q4_1", kBlock, 20, encode_blocks<q4_1, 20>},
    {"Q8_0", kBlock, 34, encode_blocks<q8_0, 34>},
};

}  // namespace

const RowEncoder& row_encoder(const std::string& type) {
  std::string names;
  for (const RowEncoder& encoder : kEncoders) {
    if (type == encoder.type) return encoder;
    names += concat(names.empty() ? "" : ", ", encoder.type);
  }
  fail(ErrorKind::kInvalidArgument, "cannot write tensors of type ", type, "; there are: ", names);
}

}  // namespace lowbit
