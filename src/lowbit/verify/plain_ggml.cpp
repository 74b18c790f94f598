// ggml's blocks, read a second time (see plain_weight.h).
#include "lowbit/verify/plain_ggml.h"

#include "lowbit/verify/raw_tensor.h"

namespace lowbit {

namespace {

float half_at(const uint8_t* bytes) {
  return f16_to_f32(static_cast<uint16_t>(bytes[0] | bytes[1] << 8));
}

// Elements 0 to 15 are the low nibbles, 16 to 31 the high ones.
int nibble_at(const uint8_t* bytes, int64_t i) { return bytes[i % 16] >> (i < 16 ? 0 : 4) & 15; }

float q4_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(nibble_at(block + 2, i) - 8);
}
float q4_1(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(nibble_at(block + 4, i)) + half_at(block + 2);
}
int five_bits(const uint8_t* high, const uint8_t* low, int64_t i) {
  return nibble_at(low, i) | (high[i / 8] >> (i % 8) & 1) << 4;
}
float q5_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(five_bits(block + 2, block + 6, i) - 16);
}
float q5_1(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(five_bits(block + 4, block + 8, i)) +
         half_at(block + 2);
}
float q8_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}
float iq4_nl(const uint8_t* block, int64_t i) {
  constexpr int kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};
  return half_at(block) * static_cast<float>(kValues[nibble_at(block + 2, i)]);
}

// Field `index` of fields of `bits` bits that share a byte.
int field_at(uint8_t byte, int64_t index, int bits) {
  return byte >> (index * bits) & ((1 << bits) - 1);
}

float q2_k(const uint8_t* block, int64_t i) {
  const int64_t run = i / 32;  // 32 weights lie in the same bits of 32 bytes
  const int code = field_at(block[16 + run / 4 * 32 + i % 32], run % 4, 2);
  const uint8_t levels = block[i / 16];
  return half_at(block + 80) * static_cast<float>((levels & 15) * code) -
         half_at(block + 82) * static_cast<float>(levels >> 4);
}
float q3_k(const uint8_t* block, int64_t i) {
  const int64_t run = i / 32, group = i / 16;
  const int code = field_at(block[32 + run / 4 * 32 + i % 32], run % 4, 2) |
                   field_at(block[i % 32], run, 1) << 2;
  const int scale = field_at(block[96 + group % 8], group / 8, 4) |
                    field_at(block[104 + group % 4], group / 4, 2) << 4;
  return half_at(block + 108) * static_cast<float>((scale - 32) * (code - 4));
}
// Scale (which = 0) or minimum (1) of a group of Q4_K and Q5_K.
int six_bits(const uint8_t* packed, int64_t group, int which) {
  const uint8_t first = packed[group % 4 + 4 * which];
  if (group < 4) return first & 63;
  return field_at(packed[group + 4], which, 4) | first >> 6 << 4;
}
float k_affine(const uint8_t* block, int64_t group, int code) {
  return half_at(block) * static_cast<float>(six_bits(block + 4, group, 0) * code) -
         half_at(block + 2) * static_cast<float>(six_bits(block + 4, group, 1));
}
float q4_k(const uint8_t* block, int64_t i) {
  return k_affine(block, i / 32, field_at(block[16 + i / 64 * 32 + i % 32], i / 32 % 2, 4));
}
float q5_k(const uint8_t* block, int64_t i) {
  return k_affine(block, i / 32,
                  field_at(block[48 + i / 64 * 32 + i % 32], i / 32 % 2, 4) |
                      field_at(block[16 + i % 32], i / 32, 1) << 4);
}
float q6_k(const uint8_t* block, int64_t i) {
  const int64_t half = i / 128, run = i % 128 / 32;
  const int code = field_at(block[64 * half + i % 64], run / 2, 4) |
                   field_at(block[128 + 32 * half + i % 32], run, 2) << 4;
  const int scale = static_cast<int8_t>(block[192 + i / 16]);
  return half_at(block + 208) * static_cast<float>(scale * (code - 32));
}

float q2_0(const uint8_t* block, int64_t i) {
  return half_at(block) * static_cast<float>(field_at(block[2 + i / 4], i % 4, 2) - 1);
}
float tq2_0(const uint8_t* block, int64_t i) {
  return half_at(block + 64) *
         static_cast<float>(field_at(block[i / 128 * 32 + i % 32], i % 128 / 32, 2) - 1);
}
float tq1_0(const uint8_t* block, int64_t i) {
  // Three runs of bytes: 32 and 16 with five digits to base 3, 4 with four.
  const int64_t first = i < 160 ? 0 : i < 240 ? 160 : 240, run = i < 160 ? 32 : i < 240 ? 16 : 4;
  const int64_t at = (i < 160 ? 0 : i < 240 ? 32 : 48) + (i - first) % run;
  int power = 3;
  for (int64_t digit = (i - first) / run; digit > 0; --digit) power *= 3;
  // floor(byte / 256 * 3^(digit + 1)) mod 3
  return half_at(block + 52) * static_cast<float>(block[at] * power / 256 % 3 - 1);
}
float q1_0(const uint8_t* block, int64_t i) {
  return field_at(block[2 + i / 8], i % 8, 1) != 0 ? half_at(block) : -half_at(block);
}

float f32(const uint8_t* element, int64_t) {
  float value;
  std::memcpy(&value, element, sizeof(value));
  return value;
}
float f16(const uint8_t* element, int64_t) { return half_at(element); }
float bf16(const uint8_t* element, int64_t) {
  return bf16_to_f32(static_cast<uint16_t>(element[0] | element[1] << 8));
}

constexpr PlainGgmlType kTypes[] = {
    {0, 1, 4, f32},       {1, 1, 2, f16},       {30, 1, 2, bf16},     {2, 32, 18, q4_0},
    {3, 32, 20, q4_1},    {6, 32, 22, q5_0},    {7, 32, 24, q5_1},    {8, 32, 34, q8_0},
    {20, 32, 18, iq4_nl}, {10, 256, 84, q2_k},  {11, 256, 110, q3_k}, {12, 256, 144, q4_k},
    {13, 256, 176, q5_k}, {14, 256, 210, q6_k}, {34, 256, 54, tq1_0}, {35, 256, 66, tq2_0},
    {41, 128, 18, q1_0},  {42, 64, 18, q2_0},
};

}  // namespace

std::span<const PlainGgmlType> plain_ggml_types() { return kTypes; }

}  // namespace lowbit
