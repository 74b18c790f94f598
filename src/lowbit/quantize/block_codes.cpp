#include "lowbit/quantize/block_codes.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/tensor/codebook.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

constexpr int64_t kNestedBlock = 256;

// A table in ascending order with the points half way between neighbours.
struct Sorted {
  std::vector<uint8_t> codes;
  std::vector<float> middles;  // a value above middles[i] is nearer to codes[i + 1]

  explicit Sorted(std::span<const float> table) {
    for (size_t code = 0; code < table.size(); ++code) {
      if (code == 8 && table[code] == table[0]) continue;  // FP4's second 0
      codes.push_back(static_cast<uint8_t>(code));
    }
    std::sort(codes.begin(), codes.end(),
              [&](uint8_t a, uint8_t b) { return table[a] < table[b]; });
    for (size_t i = 0; i + 1 < codes.size(); ++i) {
      middles.push_back((table[codes[i]] + table[codes[i + 1]]) / 2);
    }
  }
  uint8_t nearest(float value) const {
    return codes[std::lower_bound(middles.begin(), middles.end(), value) - middles.begin()];
  }
};

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

// bitsandbytes multiplies by the reciprocal, except in a last block that is not full.
void encode(std::span<const float> values, float absmax, int64_t block, const Sorted& table,
            uint8_t* codes) {
  const float divisor = std::max(absmax, 1e-38f);
  const bool full = static_cast<int64_t>(values.size()) == block;
  const float inverse = 1.f / divisor;
  for (size_t i = 0; i < values.size(); ++i) {
    const float scaled = full ? values[i] * inverse : values[i] / divisor;
    codes[i] = table.nearest(std::clamp(scaled, -1.f, 1.f));
  }
}

std::shared_ptr<const NestedScales> nest(const std::vector<float>& absmax, int64_t span) {
  auto nested = std::make_shared<NestedScales>();
  const std::array<float, 256> table = dynamic_table();
  const Sorted sorted(table);
  nested->table.assign(table.begin(), table.end());
  nested->block = kNestedBlock;
  nested->span = span;
  const double sum = std::accumulate(absmax.begin(), absmax.end(), 0.0);
  nested->offset = static_cast<float>(sum / static_cast<double>(absmax.size()));
  std::vector<float> centered(absmax.size());
  for (size_t i = 0; i < absmax.size(); ++i) centered[i] = absmax[i] - nested->offset;
  nested->codes.resize(absmax.size());
  for (size_t begin = 0; begin < centered.size(); begin += kNestedBlock) {
    const size_t size = std::min<size_t>(kNestedBlock, centered.size() - begin);
    const std::span<const float> block(centered.data() + begin, size);
    nested->absmax.push_back(largest_magnitude(block));
    encode(block, nested->absmax.back(), kNestedBlock, sorted, nested->codes.data() + begin);
  }
  return nested;
}

void check_job(const LinearJob& job, const QuantScheme& scheme) {
  LOWBIT_CHECK((scheme.code == Code::kNf4 || scheme.code == Code::kFp4) && scheme.bits == 4 &&
                   scheme.group_rows == 1 && scheme.group_size > 0,
               job.name, ": nf4 and fp4 make blocks of 4-bit codes, not ", name_of(scheme));
  LOWBIT_CHECK(
      job.rows > 0 && job.cols > 0 && job.weight.size() == static_cast<size_t>(job.rows) * job.cols,
      job.name, ": ", job.weight.size(), " weights for ", job.rows, " x ", job.cols);
}

}  // namespace

std::array<float, 256> dynamic_table() {
  std::array<float, 256> table = {0.f, 1.f};
  size_t count = 2;
  constexpr float kLow = 0.1f, kHigh = 1.f;
  constexpr double kPowers[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0};
  for (int i = 0; i < 7; ++i) {
    // 2^i + 1 points evenly spaced, from both ends to the middle as torch.linspace has them.
    const int points = (1 << i) + 1;
    const float step = (kHigh - kLow) / static_cast<float>(points - 1);
    const auto point = [&](int at) {
      return at < points / 2 ? std::fma(step, static_cast<float>(at), kLow)
                             : std::fma(-step, static_cast<float>(points - 1 - at), kHigh);
    };
    for (int at = 0; at + 1 < points; ++at) {
      const float value = static_cast<float>(kPowers[i]) * ((point(at) + point(at + 1)) / 2);
      table[count++] = value;
      table[count++] = -value;
    }
  }
  std::sort(table.begin(), table.end());
  return table;
}

QTensor BlockCodes::quantize(const LinearJob& job, const QuantScheme& scheme) const {
  check_job(job, scheme);
  const int64_t block = scheme.group_size, count = job.rows * job.cols;
  const int64_t blocks = (count + block - 1) / block;
  const bool nf4 = scheme.code == Code::kNf4;
  const Sorted table(std::span<const float>(nf4 ? kNf4Table : kFp4Table, 16));

  std::vector<float> absmax(static_cast<size_t>(blocks));
  std::vector<uint8_t> codes(static_cast<size_t>(count));
  const auto quantize_block = [&](int64_t b, int) {
    const int64_t begin = b * block;
    const auto values = job.weight.subspan(begin, std::min(block, count - begin));
    absmax[b] = largest_magnitude(values);
    encode(values, absmax[b], block, table, codes.data() + begin);
  };
  for (int64_t row = 0; row < job.rows; ++row) {
    check_finite(job.name, job.weight.subspan(row * job.cols, job.cols), row);
  }
  if (job.pool != nullptr) {
    job.pool->parallel_for(blocks, quantize_block);
  } else {
    for (int64_t b = 0; b < blocks; ++b) quantize_block(b, 0);
  }

  QTensor weight;
  weight.scheme = scheme;
  weight.scheme.group_size = std::gcd(block, job.cols);
  weight.rows = job.rows;
  weight.cols = job.cols;
  if (scheme.scale_form == ScaleForm::kNested) {
    weight.nested = nest(absmax, block);
    for (int64_t b = 0; b < blocks; ++b) absmax[b] = weight.nested->scale(b);
  }
  weight.scales.resize(static_cast<size_t>(job.rows * weight.groups()));
  for (size_t i = 0; i < weight.scales.size(); ++i) {
    weight.scales[i] = absmax[static_cast<int64_t>(i) * weight.scheme.group_size / block];
  }
  std::vector<uint8_t> packed(static_cast<size_t>(job.rows * weight.row_bytes()));
  for (int64_t e = 0; e < count; ++e) {
    pack(packed.data() + e / job.cols * weight.row_bytes(), e % job.cols, 4, codes[e]);
  }
  weight.codes = Bytes::own(std::move(packed));
  return weight;
}

}  // namespace lowbit
