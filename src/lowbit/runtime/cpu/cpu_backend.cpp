#include "lowbit/runtime/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/base/environment.h"
#include "lowbit/runtime/cpu/isa.h"
#include "lowbit/runtime/cpu/linear.h"
#include "lowbit/runtime/host_backend.h"
#include "lowbit/runtime/kv_codes.h"

namespace lowbit {

namespace {

using cpu::AttentionTask;
using cpu::Kernels;

constexpr int64_t kChunk = 16;  // tokens of one turn in elementwise loops

class CpuBackend : public HostBackend {
 public:
  CpuBackend(const Kernels& kernels, const BackendOptions& options)
      : HostBackend(options.threads), kernels_(kernels) {
    linears_->kernels = &kernels;
    linears_->pool = pool_;
    linears_->forced_layout = environment_variable("LOWBIT_LINEAR");
    linears_->int8_inputs = options.activations != Activations::kF32;
    linears_->scheme_inputs = options.activations == Activations::kDefault;
  }

  std::string name() const override { return "cpu"; }
  std::string description() const override {
    return concat("cpu ", kernels_.isa, ", ", pool_->size(),
                  pool_->size() == 1 ? " thread, " : " threads, ",
                  linears_->int8_inputs ? "int8" : "f32", " activations",
                  input_note(linears_->scheme_inputs));
  }

  std::unique_ptr<Linear> make_linear(std::vector<LinearWeight> parts) override {
    note_input_bits(parts);
    return cpu::make_cpu_linear(std::move(parts), linears_);
  }

  void add_rms_norm(Tensor& residual, const Tensor& hidden, const Tensor& weight, float eps,
                    Tensor& out) override {
    check_norm(residual, hidden, weight, out);
    each_token("add_rms_norm", hidden.rows, [&](int64_t token) {
      kernels_.add_rms_norm(residual.row(token), hidden.row(token), weight.as<float>(), hidden.cols,
                            eps, out.row(token));
    });
  }

  void qk_norm(Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
               const Tensor& k_weight, float eps) override {
    check_qk_norm(qkv, shape, q_weight, k_weight);
    each_token("qk_norm", qkv.rows, [&](int64_t token) {
      for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        float* at = qkv.row(token) + head * shape.head_dim;
        const Tensor& weight = head < shape.heads ? q_weight : k_weight;
        kernels_.rms_norm(at, weight.as<float>(), shape.head_dim, eps, at);
      }
    });
  }

  void rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                      const Tensor& sin, KvCache& cache, int64_t layer) override;
  void attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                 int64_t layer, Tensor& out) override;

  void silu_mul(const Tensor& gate_up, Tensor& out) override {
    check_silu(gate_up, out);
    each_token("silu_mul", out.rows, [&](int64_t token) {
      const float* gate = gate_up.row(token);
      kernels_.silu_mul(gate, gate + out.cols, out.cols, out.row(token));
    });
  }

 private:
  template <typename Body>
  void each_token(const char* label, int64_t tokens, const Body& body) {
    for_tokens(label, tokens, kChunk, [&](int64_t first, int64_t last) {
      for (int64_t token = first; token < last; ++token) body(token);
    });
  }
  int64_t attention_queries(const AttentionShape& shape) const;
  float* scratch(int64_t floats);

  const Kernels& kernels_;
  std::shared_ptr<cpu::LinearEnvironment> linears_ = std::make_shared<cpu::LinearEnvironment>();
  Tensor scratch_;  // [threads][floats of one attention task]
};

cpu::CacheType type_of(const KvCacheSpec& spec) {
  return spec.dtype == DType::kF32    ? cpu::CacheType::kF32
         : spec.dtype == DType::kF16  ? cpu::CacheType::kF16
         : spec.dtype == DType::kE4M3 ? cpu::CacheType::kE4M3
         : spec.dtype == DType::kI4   ? cpu::CacheType::kI4
                                      : cpu::CacheType::kI8;
}

// Writes one token's key or value to a page of the cache. x: [head_dim]
void store(const Kernels& kernels, const KvCacheSpec& spec, const float* x, int64_t token,
           uint8_t* page) {
  if (spec.dtype != DType::kF16) return store_kv(spec, x, token, page);
  kernels.store_f16(x, spec.head_dim, reinterpret_cast<uint16_t*>(page) + token * spec.head_dim);
}

void CpuBackend::rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                                const Tensor& sin, KvCache& cache, int64_t layer) {
  check_rope(qkv, shape, cos, sin, cache, layer);
  const int64_t dim = shape.head_dim;
  each_token("rope_and_store", qkv.rows, [&](int64_t token) {
    const TokenSlot& slot = slots()[token];
    const int64_t block = slot.sequence->block_table[slot.position / kBlockTokens];
    const int64_t within = slot.position % kBlockTokens;
    float* row = qkv.row(token);
    for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
      kernels_.rotate(row + head * dim, cos.row(slot.position), sin.row(slot.position), dim / 2);
      if (cache.spec.dtype == DType::kI4)
        mix_dimensions(row + head * dim, dim, head >= shape.heads);
    }
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      const float* k = row + shape.q_cols() + head * dim;
      const float* v = k + shape.kv_cols();
      store(kernels_, cache.spec, k, within, cache.page(layer, 0, block, head));
      store(kernels_, cache.spec, v, within, cache.page(layer, 1, block, head));
    }
  });
}

// Queries of one task: as many as the kernels like, but some tasks for each thread.
int64_t CpuBackend::attention_queries(const AttentionShape& shape) const {
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t share = static_cast<int64_t>(slots().size()) * shape.kv_heads / (4 * pool_->size());
  const int64_t most = std::max<int64_t>(1, kernels_.attention_rows / group);
  return std::clamp<int64_t>(share, std::min<int64_t>(most, std::max<int64_t>(1, 48 / group)),
                             most);
}

void CpuBackend::attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                           int64_t layer, Tensor& out) {
  check_attention(qkv, shape, cache, layer, out);
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t queries = attention_queries(shape);
  std::vector<AttentionTask> tasks;
  for (const SequenceSpan& span : sequences()) {
    for (int64_t first = 0; first < span.count; first += queries) {
      for (int64_t head = 0; head < shape.kv_heads; ++head) {
        AttentionTask task;
        task.q = qkv.row(span.first + first) + head * group * shape.head_dim;
        task.out = out.row(span.first + first) + head * group * shape.head_dim;
        task.q_stride = qkv.cols;
        task.out_stride = out.cols;
        task.queries = std::min(queries, span.count - first);
        task.heads = group;
        task.head_dim = shape.head_dim;
        task.position = span.position + first;
        task.window = shape.sliding_window;
        task.scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
        task.keys = cache.page(layer, 0, 0, head);
        task.values = cache.page(layer, 1, 0, head);
        task.block_stride = cache.spec.kv_heads * cache.spec.page_bytes();
        task.block_table = span.block_table.data();
        task.type = type_of(cache.spec);
        tasks.push_back(task);
      }
    }
  }
  // Later queries see more keys: the longest tasks go first.
  std::reverse(tasks.begin(), tasks.end());
  const int64_t floats =
      (kernels_.attention_scratch(queries, group, shape.head_dim) + 15) / 16 * 16;
  float* memory = scratch(floats);
  pool_->parallel_for(
      static_cast<int64_t>(tasks.size()),
      [&](int64_t index, int thread) {
        tasks[index].scratch = memory + thread * floats;
        kernels_.attention(tasks[index]);
      },
      "attention");
}

float* CpuBackend::scratch(int64_t floats) {
  if (scratch_.size() < floats * pool_->size()) {
    scratch_ = allocate_host(pool_->size(), floats);
    zero(scratch_);
  }
  return scratch_.as<float>();
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(cpu::select_kernels(environment_variable("LOWBIT_CPU_ISA")),
                                      options);
}

}  // namespace lowbit
