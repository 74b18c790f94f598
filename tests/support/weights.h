// Random weights of any scheme.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/tensor/dtype.h"
#include "lowbit/tensor/packing.h"
#include "lowbit/tensor/qtensor.h"
#include "support/random.h"

namespace lowbit::test {

inline void fill_dense(QTensor& weight, Random& random) {
  std::vector<uint8_t> codes(weight.rows * weight.row_bytes());
  for (int64_t i = 0; i < weight.rows * weight.cols; ++i) {
    const float value = random.gaussian() * 0.05f;
    const uint16_t half = weight.scheme.code == Code::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    if (weight.scheme.code == Code::kF32) {
      std::memcpy(codes.data() + i * 4, &value, 4);
    } else {
      std::memcpy(codes.data() + i * 2, &half, 2);
    }
  }
  weight.codes = Bytes::own(std::move(codes));
}

// Values of about unit variance / 20 in any scheme. Scales are halves unless `wide_scales`.
inline QTensor random_weight(const QuantScheme& scheme, int64_t rows, int64_t cols, uint64_t seed,
                             bool wide_scales = false) {
  Random random(seed);
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = rows;
  weight.cols = cols;
  if (scheme.dense()) {
    fill_dense(weight, random);
    return weight;
  }
  std::vector<uint8_t> codes(rows * weight.row_bytes());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      auto code = static_cast<uint32_t>(random.below(int64_t{1} << scheme.bits));
      if (scheme.code == Code::kE4M3 && (code & 0x7f) == 0x7f) --code;  // no NaN
      pack(codes.data() + row * weight.row_bytes(), col, scheme.bits, code);
    }
  }
  if (scheme.code == Code::kE4M3) {
    for (uint8_t& code : codes) code = (code & 0x7f) == 0x7f ? uint8_t{0x30} : code;  // no NaN
  }
  weight.codes = Bytes::own(std::move(codes));
  const float range = scheme.code == Code::kInt ? float(1 << scheme.bits) : 127.f;
  for (int64_t i = 0; i < weight.scale_rows() * weight.groups(); ++i) {
    float scale = 0.1f * (0.5f + static_cast<float>(random.uniform())) / range;
    float offset = -scale * range * (0.4f + 0.2f * static_cast<float>(random.uniform()));
    if (scheme.scale_form == ScaleForm::kE8M0) scale = 0x1p-8f;
    if (!wide_scales) {
      scale = f16_to_f32(f32_to_f16(scale));
      offset = f16_to_f32(f32_to_f16(offset));
    }
    weight.scales.push_back(scale);
    if (scheme.zero == Zero::kInt) {
      weight.zeros.push_back(static_cast<uint8_t>(random.below(int64_t{1} << scheme.bits)));
    }
    if (scheme.zero == Zero::kOffset) weight.offsets.push_back(offset);
  }
  return weight;
}

inline std::vector<int32_t> random_order(int64_t cols, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> order(cols);
  for (int64_t i = 0; i < cols; ++i) order[i] = static_cast<int32_t>(i);
  for (int64_t i = cols - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

}  // namespace lowbit::test
