#include "lowbit/quantize/row_encoder.h"

#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/quantize/ggml_blocks.h"
#include "lowbit/quantize/iq4_nl.h"
#include "lowbit/quantize/k_blocks.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

namespace {

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

constexpr RowEncoder kEncoders[] = {
    {"F32", 1, 4, encode_f32},
    {"F16", 1, 2, encode_f16},
    {"BF16", 1, 2, encode_bf16},
    {"Q4_0", 32, 18, encode_q4_0, search_q4_0},
    {"Q4_1", 32, 20, encode_q4_1, search_q4_1},
    {"Q5_0", 32, 22, encode_q5_0, search_q5_0},
    {"Q5_1", 32, 24, encode_q5_1, search_q5_1},
    {"Q8_0", 32, 34, encode_q8_0},
    {"IQ4_NL", 32, 18, encode_iq4_nl},
    {"Q2_K", 256, 84, encode_q2_k},
    {"Q3_K", 256, 110, encode_q3_k},
    {"Q4_K", 256, 144, encode_q4_k},
    {"Q5_K", 256, 176, encode_q5_k},
    {"Q6_K", 256, 210, encode_q6_k},
    {"TQ1_0", 256, 54, encode_tq1_0},
    {"TQ2_0", 256, 66, encode_tq2_0},
    {"Q1_0", 128, 18, encode_q1_0},
    {"Q2_0", 64, 18, encode_q2_0},
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
