#include "lowbit/runtime/host_backend.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/runtime/kv_codes.h"
#include "lowbit/tensor/input_codes.h"
#include "lowbit/tensor/input_rounding.h"

namespace lowbit {

Tensor HostBackend::upload(std::span<const float> values) {
  Tensor tensor = allocate_host(1, static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), tensor.as<float>());
  return tensor;
}

Tensor HostBackend::allocate(int64_t rows, int64_t cols) {
  LOWBIT_CHECK(rows >= 0 && cols >= 0 && rows <= limits::kContext && cols <= limits::kVocabSize * 4,
               "activations of ", rows, " x ", cols, " are not possible");
  return allocate_host(rows, cols, DType::kF32, Pages::kHuge);
}

void HostBackend::check_cache_spec(const KvCacheSpec& spec,
                                   std::initializer_list<DType> types) const {
  std::string names;
  for (const DType type : types) names += concat(names.empty() ? "" : ", ", kv_name_of(type));
  LOWBIT_CHECK_KIND(std::find(types.begin(), types.end(), spec.dtype) != types.end(),
                    ErrorKind::kUnsupported, "backend ", name(), " has no key/value cache of ",
                    kv_name_of(spec.dtype), ", but ", names, "; choose with --kv-cache-dtype");
  LOWBIT_CHECK(spec.layers > 0 && spec.layers <= limits::kLayers && spec.kv_heads > 0 &&
                   spec.head_dim > 0 && spec.head_dim <= limits::kDimension &&
                   spec.kv_heads <= limits::kDimension / spec.head_dim && spec.blocks > 0 &&
                   spec.blocks <= limits::kContext / kBlockTokens,
               "KV cache of ", spec.layers, " layers, ", spec.kv_heads, " heads of ", spec.head_dim,
               ", ", spec.blocks, " blocks is not possible");
}

KvCache HostBackend::make_kv_cache(const KvCacheSpec& spec) {
  check_cache_spec(spec, {DType::kF16, DType::kF32, DType::kE4M3, DType::kI8, DType::kI4});
  return KvCache{spec, allocate_host(spec.pages(), spec.page_bytes(), DType::kU8)};
}

void check_block_copy(const KvCacheSpec& spec, int64_t from, int64_t to) {
  LOWBIT_CHECK(from >= 0 && from < spec.blocks && to >= 0 && to < spec.blocks && from != to,
               "copy of KV block ", from, " to ", to, " of ", spec.blocks);
}

void HostBackend::copy_block(KvCache& cache, int64_t from, int64_t to) {
  check_block_copy(cache.spec, from, to);
  const int64_t bytes = cache.spec.bytes() / (2 * cache.spec.layers * cache.spec.blocks);
  char* data = cache.data.as<char>();
  for (int64_t plane = 0; plane < 2 * cache.spec.layers; ++plane) {
    char* blocks = data + plane * cache.spec.blocks * bytes;
    std::memcpy(blocks + to * bytes, blocks + from * bytes, static_cast<size_t>(bytes));
  }
}

void store_kv(const KvCacheSpec& spec, const float* x, int64_t token, uint8_t* page) {
  const int64_t dim = spec.head_dim;
  uint8_t* row = page + token * spec.row_bytes();
  uint8_t* scales = page + kBlockTokens * spec.row_bytes();
  if (spec.dtype == DType::kF32) {
    std::copy_n(x, dim, reinterpret_cast<float*>(row));
  } else if (spec.dtype == DType::kF16) {
    std::transform(x, x + dim, reinterpret_cast<uint16_t*>(row), f32_to_f16);
  } else if (spec.dtype == DType::kE4M3) {
    reinterpret_cast<uint16_t*>(scales)[token] = round_to_e4m3(x, dim, row);
  } else if (spec.dtype == DType::kI8) {
    reinterpret_cast<float*>(scales)[token] =
        round_inputs(x, dim, 8, reinterpret_cast<int8_t*>(row));
  } else {
    for (int64_t i = 0; i < dim; i += kKvGroup) {
      uint8_t codes[kKvGroup] = {};
      const int64_t count = std::min(kKvGroup, dim - i);
      reinterpret_cast<KvAffine*>(scales)[i / kKvGroup * kBlockTokens + token] =
          round_to_4_bits(x + i, count, codes);
      for (int64_t k = 0; k < count; k += 2) {
        row[(i + k) / 2] = static_cast<uint8_t>(codes[k] | codes[k + 1] << 4);
      }
    }
  }
}

void HostBackend::copy_to_host(const Tensor& from, std::span<float> to) {
  LOWBIT_CHECK(from.dtype == DType::kF32 && from.size() == static_cast<int64_t>(to.size()),
               "copy to host: ", from.rows, " x ", from.cols, " ", name_of(from.dtype), " into ",
               to.size(), " floats");
  std::copy_n(from.as<float>(), to.size(), to.data());
}

void HostBackend::copy_from_host(std::span<const float> from, Tensor& to) {
  LOWBIT_CHECK(to.dtype == DType::kF32 && to.size() == static_cast<int64_t>(from.size()),
               "copy from host: ", from.size(), " floats into ", to.rows, " x ", to.cols, " ",
               name_of(to.dtype));
  std::copy_n(from.data(), from.size(), to.as<float>());
}

void HostBackend::begin_step(const StepBatch& batch) {
  LOWBIT_CHECK(batch.size() > 0, "a step needs at least one token");
  int64_t next = 0;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SequenceSpan& span = batch.sequences[i];
    LOWBIT_CHECK(span.first == next && span.count > 0 && span.count <= batch.size() - next,
                 "step: span ", i, " has ", span.count, " tokens from ", span.first,
                 ", expected it to start at ", next, " of ", batch.size());
    LOWBIT_CHECK(span.position >= 0 && span.position <= limits::kContext, "step: span ", i,
                 " starts at position ", span.position);
    const int64_t end = span.position + span.count;
    LOWBIT_CHECK(
        static_cast<int64_t>(span.block_table.size()) >= (end + kBlockTokens - 1) / kBlockTokens,
        "step: span ", i, " ends at position ", end, " but its block table has only ",
        span.block_table.size(), " blocks of ", kBlockTokens);
    next += span.count;
  }
  LOWBIT_CHECK(next == batch.size(), "step: spans cover ", next, " of ", batch.size(), " tokens");
  for (const int32_t row : batch.logit_rows) {
    LOWBIT_CHECK(row >= 0 && row < batch.size(), "step: logits of token ", row, " of ",
                 batch.size());
  }
  sequences_ = &batch.sequences;
  slots_.clear();
  for (const SequenceSpan& span : batch.sequences) {
    for (int64_t i = 0; i < span.count; ++i) slots_.push_back({&span, span.position + i});
  }
}

void HostBackend::zero(Tensor& x) { std::memset(x.data, 0, static_cast<size_t>(x.bytes())); }

void HostBackend::check_gather(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  LOWBIT_CHECK(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols, "gather of ",
               rows.size(), " rows of ", x.cols, " into ", out.rows, " x ", out.cols);
  for (const int32_t row : rows) {
    LOWBIT_CHECK(row >= 0 && row < x.rows, "gather of row ", row, " of ", x.rows);
  }
}

void HostBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& out) {
  check_gather(x, rows, out);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.row(rows[i]), x.cols, out.row(static_cast<int64_t>(i)));
  }
}

void HostBackend::check_cache(const char* op, const AttentionShape& shape, const KvCache& cache,
                              int64_t layer) const {
  const KvCacheSpec& spec = cache.spec;
  LOWBIT_CHECK(sequences_ != nullptr, op, ": begin_step has not been called");
  LOWBIT_CHECK(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 &&
                   shape.head_dim > 0 && shape.head_dim % 2 == 0 && shape.sliding_window >= 0,
               op, ": ", shape.heads, " heads on ", shape.kv_heads, " of ", shape.head_dim);
  LOWBIT_CHECK(spec.kv_heads == shape.kv_heads && spec.head_dim == shape.head_dim, op,
               ": the cache has ", spec.kv_heads, " heads of ", spec.head_dim, ", attention has ",
               shape.kv_heads, " of ", shape.head_dim);
  LOWBIT_CHECK(layer >= 0 && layer < spec.layers, op, ": layer ", layer, " of ", spec.layers);
  check_blocks(op, cache);
}

void HostBackend::check_blocks(const char* op, const KvCache& cache) const {
  for (const SequenceSpan& span : *sequences_) {
    const int64_t used = (span.position + span.count + kBlockTokens - 1) / kBlockTokens;
    for (int64_t i = 0; i < used; ++i) {
      LOWBIT_CHECK(span.block_table[i] >= 0 && span.block_table[i] < cache.spec.blocks, op,
                   ": block ", span.block_table[i], " of ", cache.spec.blocks);
    }
  }
}

void HostBackend::check_rope(const Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                             const Tensor& sin, const KvCache& cache, int64_t layer) const {
  check_cache("rope", shape, cache, layer);
  LOWBIT_CHECK(qkv.rows == static_cast<int64_t>(slots_.size()) && qkv.cols == shape.qkv_cols(),
               "rope: q,k,v are ", qkv.rows, " x ", qkv.cols, ", expected ", slots_.size(), " x ",
               shape.qkv_cols());
  LOWBIT_CHECK(cos.cols == shape.head_dim / 2 && sin.cols == cos.cols && sin.rows == cos.rows,
               "rope: tables of ", cos.rows, " x ", cos.cols, " and ", sin.rows, " x ", sin.cols,
               " for heads of ", shape.head_dim);
  for (const SequenceSpan& span : *sequences_) {
    LOWBIT_CHECK(span.position + span.count <= cos.rows, "position ",
                 span.position + span.count - 1, " is beyond the context of ", cos.rows,
                 " tokens; load the model with a longer one");
  }
}

void HostBackend::check_attention(const Tensor& qkv, const AttentionShape& shape,
                                  const KvCache& cache, int64_t layer, const Tensor& out) const {
  check_cache("attention", shape, cache, layer);
  const int64_t tokens = static_cast<int64_t>(slots_.size());
  LOWBIT_CHECK(qkv.rows == tokens && qkv.cols == shape.qkv_cols() && out.rows == tokens &&
                   out.cols == shape.q_cols(),
               "attention: ", qkv.rows, " x ", qkv.cols, " to ", out.rows, " x ", out.cols,
               ", expected ", tokens, " x ", shape.qkv_cols(), " to ", tokens, " x ",
               shape.q_cols());
}

void HostBackend::check_norm(const Tensor& residual, const Tensor& hidden, const Tensor& weight,
                             const Tensor& out) const {
  LOWBIT_CHECK(residual.rows == hidden.rows && residual.cols == hidden.cols &&
                   out.rows == hidden.rows && out.cols == hidden.cols &&
                   weight.size() == hidden.cols,
               "RMSNorm: residual ", residual.rows, " x ", residual.cols, ", hidden ", hidden.rows,
               " x ", hidden.cols, ", weight ", weight.size(), ", out ", out.rows, " x ", out.cols);
}

void HostBackend::check_qk_norm(const Tensor& qkv, const AttentionShape& shape,
                                const Tensor& q_weight, const Tensor& k_weight) const {
  LOWBIT_CHECK(qkv.cols == shape.qkv_cols() && q_weight.size() == shape.head_dim &&
                   k_weight.size() == shape.head_dim,
               "RMSNorm of q and k: ", qkv.cols, " columns, weights of ", q_weight.size(), " and ",
               k_weight.size(), " for heads of ", shape.head_dim);
}

void HostBackend::check_silu(const Tensor& gate_up, const Tensor& out) const {
  LOWBIT_CHECK(gate_up.rows == out.rows && gate_up.cols == 2 * out.cols, "silu: ", gate_up.rows,
               " x ", gate_up.cols, " to ", out.rows, " x ", out.cols);
}

void HostBackend::note_inputs(const std::vector<LinearWeight>& parts,
                              bool (*follows)(const QuantScheme&)) {
  for (const LinearWeight& part : parts) {
    if (follows != nullptr && !follows(part.weight.scheme)) continue;
    const InputRounding rounding = input_rounding(part.weight);
    if (rounding.bits != 0) input_roundings_.insert(name_of(rounding));
  }
}

std::string HostBackend::input_note(bool rounded) const {
  if (input_roundings_.empty()) return "";
  std::string names;
  for (const std::string& name : input_roundings_) {
    names += concat(names.empty() ? "" : " and ", name);
  }
  return rounded ? concat(", but inputs of ", names, " where the checkpoint says so")
                 : concat(", not the ", names, " that the checkpoint says");
}

void check_linear_operands(const Linear& linear, const Tensor& x, const Tensor& y) {
  LOWBIT_CHECK(x.cols == linear.cols() && y.cols == linear.rows() && x.rows == y.rows,
               "linear: x is ", x.rows, " x ", x.cols, ", y is ", y.rows, " x ", y.cols,
               ", the weight is ", linear.rows(), " x ", linear.cols());
}

void check_embed_operands(const Linear& linear, std::span<const int32_t> ids, const Tensor& out) {
  LOWBIT_CHECK(out.rows == static_cast<int64_t>(ids.size()) && out.cols == linear.cols(),
               "embedding of ", ids.size(), " tokens of width ", linear.cols(), " into ", out.rows,
               " x ", out.cols);
  for (const int32_t id : ids) {
    LOWBIT_CHECK(id >= 0 && id < linear.rows(), "token ", id, " is not in the vocabulary of ",
                 linear.rows());
  }
}

void check_parts(const std::vector<LinearWeight>& parts) {
  LOWBIT_CHECK(!parts.empty(), "a linear needs at least one weight");
  for (const LinearWeight& part : parts) {
    validate(part.weight, part.name);
    LOWBIT_CHECK(part.weight.cols == parts[0].weight.cols, part.name, " has ", part.weight.cols,
                 " columns, ", parts[0].name, " has ", parts[0].weight.cols);
    LOWBIT_CHECK(part.bias.empty() || static_cast<int64_t>(part.bias.size()) == part.weight.rows,
                 part.name, ": bias of ", part.bias.size(), " for ", part.weight.rows, " rows");
  }
}

}  // namespace lowbit
