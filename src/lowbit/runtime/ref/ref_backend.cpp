#include "lowbit/runtime/ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/runtime/host_backend.h"

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

// Keeps weights as they came and dequantizes a row whenever it is multiplied.
class RefLinear : public Linear {
 public:
  RefLinear(std::vector<LinearWeight> parts, std::shared_ptr<ThreadPool> pool)
      : parts_(std::move(parts)), pool_(std::move(pool)) {
    for (const LinearWeight& part : parts_) {
      first_rows_.push_back(rows_);
      rows_ += part.weight.rows;
    }
  }

  void forward(const Tensor& x, Tensor& y) const override {
    check_linear_operands(*this, x, y);
    constexpr int64_t kRows = 16;  // per turn of a thread
    pool_->parallel_for((rows_ + kRows - 1) / kRows, [&](int64_t index, int) {
      std::vector<float> weight(cols());
      for (int64_t row = index * kRows; row < std::min(rows_, (index + 1) * kRows); ++row) {
        const float bias = row_of(row, weight.data());
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
  std::string kernel() const override { return "dequantize"; }

 private:
  // Writes row `row` to out and returns its bias.
  float row_of(int64_t row, float* out) const {
    const size_t part =
        std::upper_bound(first_rows_.begin(), first_rows_.end(), row) - first_rows_.begin() - 1;
    const LinearWeight& weight = parts_[part];
    dequantize_row(weight.weight, row - first_rows_[part], out);
    return weight.bias.empty() ? 0.f : weight.bias[row - first_rows_[part]];
  }

  std::vector<LinearWeight> parts_;
  std::vector<int64_t> first_rows_;  // of each part
  int64_t rows_ = 0;
  std::shared_ptr<ThreadPool> pool_;
};

// `count` values of a KV cache from element `offset` on.
void load_cache(const KvCache& cache, int64_t offset, int64_t count, float* out) {
  if (cache.spec.dtype == DType::kF32) {
    std::copy_n(cache.data.as<float>() + offset, count, out);
  } else {
    const uint16_t* from = cache.data.as<uint16_t>() + offset;
    std::transform(from, from + count, out, f16_to_f32);
  }
}

void store_cache(KvCache& cache, int64_t offset, int64_t count, const float* values) {
  if (cache.spec.dtype == DType::kF32) {
    std::copy_n(values, count, cache.data.as<float>() + offset);
  } else {
    std::transform(values, values + count, cache.data.as<uint16_t>() + offset, f32_to_f16);
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
  explicit RefBackend(int threads) : HostBackend(threads) {}

  std::string name() const override { return "ref"; }
  std::string description() const override {
    return concat("ref, ", pool_->size(), pool_->size() == 1 ? " thread" : " threads",
                  ", f32 activations");
  }

  std::unique_ptr<Linear> make_linear(std::vector<LinearWeight> parts) override {
    check_parts(parts);
    return std::make_unique<RefLinear>(std::move(parts), pool_);
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
      const int64_t within = slot.position % kBlockTokens * dim;
      float* row = qkv.row(token);
      for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        rotate(row + head * dim, cos.row(slot.position), sin.row(slot.position), dim / 2);
      }
      for (int64_t head = 0; head < shape.kv_heads; ++head) {
        const float* k = row + shape.q_cols() + head * dim;
        store_cache(cache, cache.offset(layer, 0, block, head) + within, dim, k);
        store_cache(cache, cache.offset(layer, 1, block, head) + within, dim, k + shape.kv_cols());
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
      load_cache(cache, cache.offset(layer, which, block, kv_head) + position % kBlockTokens * dim,
                 dim, row.data());
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
};

}  // namespace

std::unique_ptr<Backend> make_ref_backend(const BackendOptions& options) {
  LOWBIT_CHECK_KIND(options.activations != Activations::kInt8, ErrorKind::kUnsupported,
                    "backend ref computes in fp32; int8 activations need --backend cpu");
  return std::make_unique<RefBackend>(options.threads);
}

}  // namespace lowbit
