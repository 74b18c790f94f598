// GPTQ (Frantar et al. 2022, arXiv:2210.17323). Rounds the columns of a weight one at a time and
// moves each rounding error into the columns still to come, by the inverse Hessian of the layer's
// inputs.
//
// With search_scale a group's grid is the one of least error, columns weighted by the Hessian's
// diagonal. Without it, a symmetric group has the scale 2 max|w| / (2^bits - 1), as in the
// published program: smaller steps than rtn, and no weight further than half a step from a code.
//
// Groups take their grid when their first column is reached, from the weights as they are then.
// Unless ActOrder::kNone, columns are taken in descending order of the Hessian's diagonal; static
// groups have grids of the original weights.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/group_math.h"
#include "lowbit/quantize/method_options.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class Gptq final : public BlockQuantizer {
 public:
  explicit Gptq(const GptqOptions& options) : options_(options) {}

  CalibrationNeeds needs() const override { return {}; }
  BlockResult quantize(BlockJob& job) const override;

 private:
  BlockResult quantize_on_device(BlockJob& job) const;

  GptqOptions options_;
};

// What GPTQ derives from the inputs of a group of linears.
struct GptqFactor {
  std::vector<int32_t> order;  // column taken at each step
  std::vector<float> sizes;    // [cols] the Hessian's diagonal
  std::vector<bool> dead;      // [cols] columns whose input was always 0: their weights become 0
  std::vector<float> factor;   // see inverse_factor(), in `order`
  double damp_percent = 0;     // that it took; more than asked for if the Hessian was singular
};

// hessian: [cols][cols], the sum (or any multiple of it) of x * x^T over inputs x; its lower half
// is read. Throws kInvalidArgument naming `name` if it is not finite.
GptqFactor gptq_factor(const std::string& name, std::span<const double> hessian, int64_t cols,
                       const GptqOptions& options, ThreadPool& pool);

// The same of the Hessian's diagonal alone: `decompose` makes the factor in the order of `columns`
// with `damping` added to the diagonal, where 0 counts as 1, and says whether it could.
GptqFactor gptq_factor(const std::string& name, std::vector<double> diagonal,
                       const GptqOptions& options,
                       const std::function<bool(GptqFactor& columns, double damping)>& decompose);

// The grid of a group.
GridRequest gptq_grid(const QuantScheme& scheme, const GptqOptions& options);

// Takes int_scheme() with Zero::kNone or kInt.
QTensor gptq_round(const LinearJob& job, const QuantScheme& scheme, const GptqFactor& factor,
                   const GptqOptions& options);

}  // namespace lowbit
