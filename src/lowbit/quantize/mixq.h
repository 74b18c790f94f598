// MixQ (Chen et al., SC 2024; Qcompiler/MIXQ): weights and inputs in 8 or 4 bits, but for the
// columns whose inputs are large over calibration data, which stay in fp16 (W8A8O16, W4A8O16,
// W4A4O16). Of each linear, with one scale a row:
//
//   8 bits   scale = max|w| / 127 over the whole row, outlier columns too
//   4 bits   outlier columns become 0, scale = max|w| / 10, codes are clamped to -8..7
//
// in fp16. So given activation scales, with the columns where these are largest as outliers, as
// MixQ has it. Given calibration text, columns are chosen for the step that they leave to the
// others (outlier_choice.h), since the largest are often large for the first token alone, and each
// row's scale is searched for the least error of the columns that are no outliers. With 4 bits,
// down_proj has 8 all the same (mixq_module_scheme()).
#pragma once

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/method_options.h"
#include "lowbit/quantize/quantizer.h"

namespace lowbit {

class MixQ final : public BlockQuantizer {
 public:
  explicit MixQ(const MixqOptions& options) : options_(options) {}

  // Nothing if the options bring activation scales, or there are to be no outliers.
  CalibrationNeeds needs() const override;
  // Throws kInvalidArgument too if a linear has no more columns than there are to be outliers.
  BlockResult quantize(BlockJob& job) const override;

 private:
  MixqOptions options_;
};

// The scheme of a module where `request` is that of the model.
QuantScheme mixq_module_scheme(const QuantScheme& request, const std::string& module);

// The `count` columns of the highest rank, in ascending order of it; of equal ones the later.
std::vector<int32_t> outlier_columns(const std::vector<float>& ranks, int64_t count);

enum class MixqScale { kPublished, kSearched };

// One weight; columns as in OutlierColumns, perhaps none. Throws kInvalidArgument naming the job if
// a weight is not finite or too large for fp16.
QTensor quantize_with_outliers(const LinearJob& job, const QuantScheme& scheme,
                               const std::vector<int32_t>& columns,
                               MixqScale scale = MixqScale::kPublished);

}  // namespace lowbit
