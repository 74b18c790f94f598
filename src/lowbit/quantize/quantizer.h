// Quantizer: one method. Methods see weights and schemes, never files, models or devices.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

struct LinearJob {
  std::string name;  // "model.layers.0.self_attn.q_proj", for errors
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const float> weight;  // [rows][cols]
  ThreadPool* pool = nullptr;     // null: one thread. The result does not depend on it.
};

class Quantizer {
 public:
  virtual ~Quantizer() = default;
  // A weight of exactly this scheme (Code::kInt, one row per group, zero kNone or kInt). Scales are
  // values that fp16 holds, since that is what formats store. Throws kInvalidArgument naming the
  // job if a weight is not finite (with row and column), a scale overflows fp16, or the group size
  // does not divide the columns.
  virtual QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const = 0;
};

struct QuantizeMethod {
  const char* name;  // --method
  const char* description;
  std::unique_ptr<Quantizer> (*make)();
};
std::span<const QuantizeMethod> quantize_methods();
// Throws kInvalidArgument listing the names there are.
const QuantizeMethod& quantize_method(const std::string& name);

// Throws kInvalidArgument naming row and column of the first weight that is NaN or infinite.
void check_finite(const std::string& name, std::span<const float> row, int64_t row_index);

}  // namespace lowbit
