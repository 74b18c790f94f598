// Quantizer: one method. Methods see weights and schemes, never files, models or devices.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/tensor/qtensor.h"

namespace lowbit {

class BlockQuantizer;  // block_quantizer.h
class QuantizeDevice;  // quantize_device.h
struct MethodOptions;  // method_options.h

struct LinearJob {
  std::string name;  // "model.layers.0.self_attn.q_proj", for errors
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const float> weight;  // [rows][cols]
  ThreadPool* pool = nullptr;     // null: one thread. The result does not depend on it.
  // Where to compute, if not on the host: then of `stored`, the weight as the checkpoint holds it,
  // or of `weight` if that is null.
  QuantizeDevice* device = nullptr;
  const QTensor* stored = nullptr;
};

class Quantizer {
 public:
  virtual ~Quantizer() = default;
  // A weight of exactly this scheme, for_shape() of the job (nf4 and fp4: see block_codes.h), which
  // must be one that the method makes. Scales are values that the scheme's formats hold: fp16 for
  // integer codes. Throws kInvalidArgument naming the job if a weight is not finite (with row and
  // column), a scale overflows, or the group size does not divide the columns.
  virtual QTensor quantize(const LinearJob& job, const QuantScheme& scheme) const = 0;
};

// What the user may choose; a method with a grid of its own ignores what it decides itself.
struct SchemeRequest {
  int bits = 4;
  int64_t group_size = 64;  // -1: one group per row; 0: the method's own, else one per row
  bool symmetric = true;
  int input_bits = 0;  // QuantScheme's, 16 for none; 0: the method's usual
  InputForm input_form = InputForm::kToken;
};

struct QuantizeMethod {
  const char* name;    // --method
  const char* format;  // --format where none is named
  const char* description;
  std::unique_ptr<Quantizer> (*make)();                 // of what is in no block, if it calibrates
  QuantScheme (*scheme)(const SchemeRequest& request);  // see for_shape()
  // Null if the method needs no calibration data.
  std::unique_ptr<BlockQuantizer> (*make_block)(const MethodOptions& options) = nullptr;

  // What of the options its result depends on, for the journal; null: nothing.
  Json (*describe)(const MethodOptions& options) = nullptr;
  // Whether its weights have an input_order; null: never.
  bool (*reorders)(const MethodOptions& options) = nullptr;
  // A pass over the whole model follows the blocks: refine.h.
  bool refines = false;
  int fewest_bits = 2;  // of --bits
  // The scheme of a module where the model's is `request`; null: the same.
  QuantScheme (*module_scheme)(const QuantScheme& request, const std::string& module) = nullptr;
  // Only `format` holds what it makes.
  bool own_format = false;
  // Chooses a scheme for each layer and leaves the rounding to another method: mix_choice.h.
  bool mixes = false;
  bool on_device = false;  // computes on a QuantizeDevice too

  bool calibrates() const { return make_block != nullptr || mixes; }
};
std::span<const QuantizeMethod> quantize_methods();
// Throws kInvalidArgument listing the names there are.
const QuantizeMethod& quantize_method(const std::string& name);

// Throws kInvalidArgument naming row and column of the first weight that is NaN or infinite.
void check_finite(const std::string& name, std::span<const float> row, int64_t row_index);

}  // namespace lowbit
