#include "lowbit/quantize/float_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "lowbit/base/check.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr float kE2M1Max = 6.f;
constexpr float kSmallestE4M3 = 0x1p-9f;

uint8_t nearest_e2m1(float value) {
  // Half way between neighbours; a tie goes to the code whose last bit is 0.
  constexpr float kMiddles[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.f};
  const float magnitude = std::fabs(value);
  int code = 0;
  while (code < 7 &&
         (magnitude > kMiddles[code] || (magnitude == kMiddles[code] && code % 2 == 1))) {
    ++code;
  }
  return static_cast<uint8_t>(code | (std::signbit(value) ? 8 : 0));
}

// The power of two for a group whose largest magnitude is given.
float power_scale(float largest, int offset) {
  if (largest == 0) return 1.f;
  const uint32_t rounded = std::bit_cast<uint32_t>(largest) + (1u << 21);
  const int exponent = static_cast<int>(rounded >> 23) - offset;
  return e8m0_to_f32(static_cast<uint8_t>(std::clamp(exponent, 0, 254)));
}

class Encoder {
 public:
  Encoder(const LinearJob& job, const QuantScheme& scheme) : job_(job) {
    weight.scheme = scheme;
    weight.rows = job.rows;
    weight.cols = job.cols;
    codes_.resize(static_cast<size_t>(job.rows * weight.row_bytes()));
    weight.scales.resize(static_cast<size_t>(weight.scale_rows() * weight.groups()));
    if (scheme.scale_form == ScaleForm::kE4M3) {
      float largest = 0;
      for (const float value : job.weight) largest = std::max(largest, std::fabs(value));
      const float global = kE4M3Max * kE2M1Max / std::max(largest, 1.17549435e-38f);
      weight.global_scale = std::isfinite(global) ? global : 1.f;
    }
  }

  // All groups of one row of scales.
  void encode(int64_t scale_row) {
    const int64_t begin = scale_row * weight.scheme.group_rows;
    const int64_t end = std::min(begin + weight.scheme.group_rows, weight.rows);
    for (int64_t row = begin; row < end; ++row) check_finite(job_.name, row_of(row), row);
    for (int64_t g = 0; g < weight.groups(); ++g) {
      const int64_t first = g * weight.scheme.group_size;
      const int64_t count = std::min(weight.scheme.group_size, weight.cols - first);
      float largest = 0;
      for (int64_t row = begin; row < end; ++row) {
        for (const float value : row_of(row).subspan(first, count)) {
          largest = std::max(largest, std::fabs(value));
        }
      }
      const float scale = scale_of(largest);
      weight.scales[scale_row * weight.groups() + g] = scale;
      for (int64_t row = begin; row < end; ++row) encode_group(row, first, count, scale);
    }
  }

  QTensor finish() {
    weight.codes = Bytes::own(std::move(codes_));
    return std::move(weight);
  }

  QTensor weight;

 private:
  std::span<const float> row_of(int64_t row) const {
    return job_.weight.subspan(row * job_.cols, job_.cols);
  }

  float scale_of(float largest) const {
    const bool four = weight.scheme.code == Code::kE2M1;
    const float top = four ? kE2M1Max : kE4M3Max;
    switch (weight.scheme.scale_form) {
      case ScaleForm::kE8M0:
        return power_scale(largest, four ? 2 : 8);
      case ScaleForm::kE4M3: {
        const float scale = e4m3_to_f32(f32_to_e4m3(weight.global_scale * (largest / top)));
        return std::max(scale, kSmallestE4M3) / weight.global_scale;
      }
      default:
        const float scale = largest / top;
        return scale > 0 ? scale : 1.f;
    }
  }

  void encode_group(int64_t row, int64_t first, int64_t count, float scale) {
    const std::span<const float> values = row_of(row);
    uint8_t* out = codes_.data() + row * weight.row_bytes();
    for (int64_t k = first; k < first + count; ++k) {
      const float scaled = values[k] / scale;
      pack(out, k, weight.scheme.bits,
           weight.scheme.code == Code::kE2M1 ? nearest_e2m1(scaled) : f32_to_e4m3(scaled));
    }
  }

  const LinearJob& job_;
  std::vector<uint8_t> codes_;
};

void check_job(const LinearJob& job) {
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
}

void for_each(ThreadPool* pool, int64_t count, const std::function<void(int64_t)>& work) {
  if (pool != nullptr) {
    pool->parallel_for(count, [&](int64_t index, int) { work(index); });
  } else {
    for (int64_t index = 0; index < count; ++index) work(index);
  }
}

}  // namespace

QTensor FloatCodes::quantize(const LinearJob& job, const QuantScheme& request) const {
  check_job(job);
  const QuantScheme scheme = for_shape(request, job.rows, job.cols);
  const bool four = scheme.code == Code::kE2M1 && scheme.scale_form != ScaleForm::kFloat;
  LOWBIT_CHECK(four || (scheme.code == Code::kE4M3 && (scheme.scale_form == ScaleForm::kFloat ||
                                                       scheme.scale_form == ScaleForm::kE8M0)),
               job.name, ": no method makes ", name_of(scheme));
  LOWBIT_CHECK(scheme.scale_form == ScaleForm::kFloat || job.cols % scheme.group_size == 0,
               job.name, ": groups of ", scheme.group_size, " do not divide ", job.cols,
               " columns; keep this module in 16 bits with --skip");
  Encoder encoder(job, scheme);
  for_each(job.pool, encoder.weight.scale_rows(), [&](int64_t row) { encoder.encode(row); });
  return encoder.finish();
}

QTensor Int8Rows::quantize(const LinearJob& job, const QuantScheme& request) const {
  check_job(job);
  const QuantScheme scheme = for_shape(request, job.rows, job.cols);
  LOWBIT_CHECK(scheme == int_scheme(8, job.cols), job.name,
               ": int8 makes 8-bit codes with one scale a row, not ", name_of(scheme));
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = job.rows;
  weight.cols = job.cols;
  weight.scales.resize(static_cast<size_t>(job.rows));
  std::vector<uint8_t> codes(job.weight.size());
  for_each(job.pool, job.rows, [&](int64_t row) {
    const std::span<const float> values = job.weight.subspan(row * job.cols, job.cols);
    check_finite(job.name, values, row);
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    weight.scales[row] = largest / 127.f;
    const float inverse = largest > 0 ? 127.f / largest : 0.f;
    for (int64_t k = 0; k < job.cols; ++k) {
      codes[row * job.cols + k] =
          static_cast<uint8_t>(128 + static_cast<int>(std::nearbyint(values[k] * inverse)));
    }
  });
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

}  // namespace lowbit
