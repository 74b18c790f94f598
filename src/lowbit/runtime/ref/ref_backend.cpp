#include "lowbit/runtime/ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/runtime/host_backend.h"
#include "lowbit/runtime/kv_codes.h"
#include "lowbit/tensor/input_codes.h"
#include "lowbit/tensor/packing.h"

namespace lowbit {

namespace {

// Sums in 16 strided lanes: a fixed order that the compiler can keep in vector registers.
float dot(const float* a, const float* b, int64_t count) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[k + lane] * b[k + lane];
  }
  float sum = 0;
  for (; k < count; ++k) sum += a[k] * b[k];
  for (const float lane : lanes) sum += lane;
  return sum;
}

// out may be x.
void rms_norm(const float* x, const float* weight, int64_t count, float eps, float* out) {
  const float scale = 1.f / std::sqrt(dot(x, x, count) / static_cast<float>(count) + eps);
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * scale * weight[i];
}

// The inputs of a weight whose scheme rounds them.
struct RoundedInputs {
  std::vector<float> codes;     // [tokens][cols]
  std::vector<float> scales;    // [tokens]
  std::vector<float> outliers;  // [tokens][outlier columns], as they are; 0 among the codes
};

RoundedInputs inputs_for(const QTensor& weight, const Tensor& x) {
  RoundedInputs inputs;
  inputs.codes.resize(static_cast<size_t>(x.size()));
  std::vector<float> row(static_cast<size_t>(x.cols));
  for (int64_t token = 0; token < x.rows; ++token) {
    std::copy_n(x.row(token), x.cols, row.begin());
    if (weight.outliers) {
      for (const int32_t column : weight.outliers->columns) {
        inputs.outliers.push_back(row[column]);
        row[column] = 0;
      }
    }
    inputs.scales.push_back(
        round_inputs(weight.scheme, row.data(), x.cols, inputs.codes.data() + token * x.cols));
  }
  return inputs;
}

// One row of such a weight times one token after another:
//   y = scale_x * sum over groups of scale_w * (sum of (q - zero) * code_x)  + x_o . w_o
// with the inner sum in integers, or in double for 8-bit floats.
class RoundedRow {
 public:
  RoundedRow(const QTensor& weight, int64_t row) : weight_(weight) {
    const QuantScheme& scheme = weight.scheme;
    const uint8_t* codes = weight.codes.data + row * weight.row_bytes();
    first_entry_ = row / scheme.group_rows * weight.groups();
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t entry = first_entry_ + k / scheme.group_size;
      const int zero = scheme.zero == Zero::kNone  ? 1 << (scheme.bits - 1)
                       : scheme.zero == Zero::kInt ? weight.zeros[entry]
                                                   : 0;
      const uint32_t code = unpack(codes, k, scheme.bits);
      values_.push_back(scheme.code == Code::kE4M3
                            ? e4m3_to_f32(static_cast<uint8_t>(code))
                            : static_cast<float>(static_cast<int>(code) - zero));
    }
    if (!weight.outliers) return;
    outliers_.resize(weight.outliers->columns.size());
    dequantize_row(weight.outliers->weight, row, outliers_.data());
  }

  float times(const RoundedInputs& inputs, int64_t token) const {
    const float* codes = inputs.codes.data() + token * weight_.cols;
    const int64_t size = weight_.scheme.group_size;
    const auto input = [&](int64_t k) {
      return codes[weight_.input_order.empty() ? k : weight_.input_order[k]];
    };
    float sum = 0;
    for (int64_t group = 0; group < weight_.groups(); ++group) {
      double products = 0, codes_alone = 0;
      for (int64_t k = group * size; k < std::min(weight_.cols, (group + 1) * size); ++k) {
        products += double{values_[static_cast<size_t>(k)]} * double{input(k)};
        codes_alone += input(k);
      }
      sum += weight_.scales[first_entry_ + group] * static_cast<float>(products);
      if (weight_.scheme.zero == Zero::kOffset) {
        sum += weight_.offsets[first_entry_ + group] * static_cast<float>(codes_alone);
      }
    }
    sum *= inputs.scales[token];
    const auto count = static_cast<int64_t>(outliers_.size());
    return sum + dot(inputs.outliers.data() + token * count, outliers_.data(), count);
  }

 private:
  const QTensor& weight_;
  int64_t first_entry_ = 0;
  std::vector<float> values_;    // [cols]
  std::vector<float> outliers_;  // [outlier columns]
};

// Keeps weights as they came and dequantizes a row whenever it is multiplied; or, where a scheme
// rounds inputs, multiplies integers.
class RefLinear : public Linear {
 public:
  RefLinear(std::vector<LinearWeight> parts, std::shared_ptr<ThreadPool> pool, bool rounds_inputs)
      : parts_(std::move(parts)), pool_(std::move(pool)), rounds_inputs_(rounds_inputs) {
    for (const LinearWeight& part : parts_) {
      first_rows_.push_back(rows_);
      rows_ += part.weight.rows;
    }
  }

  void forward(const Tensor& x, Tensor& y) const override {
    check_linear_operands(*this, x, y);
    std::vector<RoundedInputs> rounded(parts_.size());
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (rounds(parts_[i])) rounded[i] = inputs_for(parts_[i].weight, x);
    }
    constexpr int64_t kRows = 16;  // per turn of a thread
    pool_->parallel_for((rows_ + kRows - 1) / kRows, [&](int64_t index, int) {
      std::vector<float> weight(cols());
      for (int64_t row = index * kRows; row < std::min(rows_, (index + 1) * kRows); ++row) {
        const size_t part = part_of(row);
        if (rounds(parts_[part])) {
          const RoundedRow integers(parts_[part].weight, row - first_rows_[part]);
          for (int64_t token = 0; token < x.rows; ++token) {
            y.row(token)[row] = integers.times(rounded[part], token) + bias_of(row);
          }
          continue;
        }
        row_of(row, weight.data());
        const float bias = bias_of(row);
        for (int64_t token = 0; token < x.rows; ++token) {
          y.row(token)[row] = dot(x.row(token), weight.data(), x.cols) + bias;
        }
      }
    });
  }

  void embed(std::span<const int32_t> ids, Tensor& out) const override {
    check_embed_operands(*this, ids, out);
    for (size_t i = 0; i < ids.size(); ++i) row_of(ids[i], out.row(static_cast<int64_t>(i)));
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return parts_[0].weight.cols; }
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const LinearWeight& part : parts_) bytes += part.weight.stored_bytes();
    return bytes;
  }
  std::string kernel() const override {
    return std::any_of(parts_.begin(), parts_.end(), [&](const auto& part) { return rounds(part); })
               ? "integers"
               : "dequantize";
  }

 private:
  size_t part_of(int64_t row) const {
    return std::upper_bound(first_rows_.begin(), first_rows_.end(), row) - first_rows_.begin() - 1;
  }
  bool rounds(const LinearWeight& part) const {
    return rounds_inputs_ && part.weight.scheme.input_bits != 0;
  }
  void row_of(int64_t row, float* out) const {
    const size_t part = part_of(row);
    dequantize_row(parts_[part].weight, row - first_rows_[part], out);
  }
  float bias_of(int64_t row) const {
    const size_t part = part_of(row);
    return parts_[part].bias.empty() ? 0.f : parts_[part].bias[row - first_rows_[part]];
  }

  std::vector<LinearWeight> parts_;
  std::vector<int64_t> first_rows_;  // of each part
  int64_t rows_ = 0;
  std::shared_ptr<ThreadPool> pool_;
  bool rounds_inputs_;
};

// One token's key or value in a page of the cache: [dim]
void load_cache(const KvCacheSpec& spec, const uint8_t* page, int64_t token, float* out) {
  const int64_t dim = spec.head_dim;
  const uint8_t* row = page + token * spec.row_bytes();
  const uint8_t* scales = page + kBlockTokens * spec.row_bytes();
  if (spec.dtype == DType::kF32) {
    std::copy_n(reinterpret_cast<const float*>(row), dim, out);
  } else if (spec.dtype == DType::kF16) {
    const auto* from = reinterpret_cast<const uint16_t*>(row);
    std::transform(from, from + dim, out, f16_to_f32);
  } else if (spec.dtype == DType::kE4M3) {
    const float scale = f16_to_f32(reinterpret_cast<const uint16_t*>(scales)[token]);
    std::transform(row, row + dim, out, [&](uint8_t code) { return e4m3_to_f32(code) * scale; });
  } else if (spec.dtype == DType::kI4) {
    const auto* groups = reinterpret_cast<const KvAffine*>(scales);
    for (int64_t i = 0; i < dim; ++i) {
      out[i] = groups[i / kKvGroup * kBlockTokens + token].value(row[i / 2] >> i % 2 * 4 & 15);
    }
  } else {
    const float scale = reinterpret_cast<const float*>(scales)[token];
    const auto* codes = reinterpret_cast<const int8_t*>(row);
    std::transform(codes, codes + dim, out,
                   [&](int8_t code) { return static_cast<float>(code) * scale; });
  }
}

// Rotates pairs (i, i + head_dim / 2) of one head.
void rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

class RefBackend : public HostBackend {
 public:
  explicit RefBackend(const BackendOptions& options)
      : HostBackend(options.threads),
        rounds_inputs_(options.activations == Activations::kDefault) {}

  std::string name() const override { return "ref"; }
  std::string description() const override {
    return concat("ref, ", pool_->size(), pool_->size() == 1 ? " thread" : " threads",
                  ", f32 activations", input_note(rounds_inputs_));
  }

  std::unique_ptr<Linear> make_linear(std::vector<LinearWeight> parts) override {
    check_parts(parts);
    note_input_bits(parts);
    return std::make_unique<RefLinear>(std::move(parts), pool_, rounds_inputs_);
  }

  void add_rms_norm(Tensor& residual, const Tensor& hidden, const Tensor& weight, float eps,
                    Tensor& out) override {
    check_norm(residual, hidden, weight, out);
    for (int64_t token = 0; token < hidden.rows; ++token) {
      for (int64_t i = 0; i < hidden.cols; ++i) residual.row(token)[i] += hidden.row(token)[i];
      rms_norm(residual.row(token), weight.as<float>(), hidden.cols, eps, out.row(token));
    }
  }

  void qk_norm(Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
               const Tensor& k_weight, float eps) override {
    check_qk_norm(qkv, shape, q_weight, k_weight);
    for (int64_t token = 0; token < qkv.rows; ++token) {
      for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        float* at = qkv.row(token) + head * shape.head_dim;
        const Tensor& weight = head < shape.heads ? q_weight : k_weight;
        rms_norm(at, weight.as<float>(), shape.head_dim, eps, at);
      }
    }
  }

  void rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                      const Tensor& sin, KvCache& cache, int64_t layer) override {
    check_rope(qkv, shape, cos, sin, cache, layer);
    const int64_t dim = shape.head_dim;
    for (int64_t token = 0; token < qkv.rows; ++token) {
      const TokenSlot& slot = slots()[token];
      const int64_t block = slot.sequence->block_table[slot.position / kBlockTokens];
      const int64_t within = slot.position % kBlockTokens;
      float* row = qkv.row(token);
      for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        rotate(row + head * dim, cos.row(slot.position), sin.row(slot.position), dim / 2);
        if (cache.spec.dtype == DType::kI4)
          mix_dimensions(row + head * dim, dim, head >= shape.heads);
      }
      for (int64_t head = 0; head < shape.kv_heads; ++head) {
        const float* k = row + shape.q_cols() + head * dim;
        store_kv(cache.spec, k, within, cache.page(layer, 0, block, head));
        store_kv(cache.spec, k + shape.kv_cols(), within, cache.page(layer, 1, block, head));
      }
    }
  }

  void attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                 int64_t layer, Tensor& out) override {
    check_attention(qkv, shape, cache, layer, out);
    pool_->parallel_for(qkv.rows, [&](int64_t token, int) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        attend(slots()[token], qkv.row(token) + head * shape.head_dim, shape, cache, layer,
               head / (shape.heads / shape.kv_heads), out.row(token) + head * shape.head_dim);
      }
    });
  }

  void silu_mul(const Tensor& gate_up, Tensor& out) override {
    check_silu(gate_up, out);
    for_tokens("silu_mul", out.rows, 1, [&](int64_t token, int64_t) {
      const float* gate = gate_up.row(token);
      for (int64_t i = 0; i < out.cols; ++i) {
        out.row(token)[i] = gate[i] / (1.f + std::exp(-gate[i])) * gate[out.cols + i];
      }
    });
  }

 private:
  // out = softmax(q * K^T / sqrt(head_dim)) * V for one query head.
  void attend(const TokenSlot& slot, const float* q, const AttentionShape& shape,
              const KvCache& cache, int64_t layer, int64_t kv_head, float* out) const {
    const int64_t dim = shape.head_dim;
    const int64_t window = shape.sliding_window > 0 ? shape.sliding_window : slot.position + 1;
    const int64_t first = std::max<int64_t>(0, slot.position + 1 - window);
    std::vector<float> row(dim), scores;
    const auto load = [&](int which, int64_t position) {
      const int64_t block = slot.sequence->block_table[position / kBlockTokens];
      load_cache(cache.spec, cache.page(layer, which, block, kv_head), position % kBlockTokens,
                 row.data());
    };
    for (int64_t key = first; key <= slot.position; ++key) {
      load(0, key);
      scores.push_back(dot(q, row.data(), dim) / std::sqrt(static_cast<float>(dim)));
    }
    const float max = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    for (float& score : scores) sum += score = std::exp(score - max);
    std::fill_n(out, dim, 0.f);
    for (int64_t key = first; key <= slot.position; ++key) {
      load(1, key);
      for (int64_t i = 0; i < dim; ++i) out[i] += scores[key - first] / sum * row[i];
    }
  }

  bool rounds_inputs_;  // where schemes say so
};

}  // namespace

std::unique_ptr<Backend> make_ref_backend(const BackendOptions& options) {
  LOWBIT_CHECK_KIND(options.activations != Activations::kInt8, ErrorKind::kUnsupported,
                    "backend ref computes in fp32; int8 activations need --backend cpu");
  return std::make_unique<RefBackend>(options);
}

}  // namespace lowbit
