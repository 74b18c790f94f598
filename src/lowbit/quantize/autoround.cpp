#include "lowbit/quantize/autoround.h"

#include "lowbit/base/check.h"
#include "lowbit/quantize/learning.h"

namespace lowbit {

AutoRound::AutoRound(const AutoRoundOptions& options) : options_(options) {
  LOWBIT_CHECK(
      options.iterations > 0 && options.batch_size >= 0 && options.learning_rate >= 0,
      "autoround needs at least one iteration, and a batch size and rate that are not negative, "
      "not ",
      options.iterations, ", ", options.batch_size, ", ", options.learning_rate);
}

CalibrationNeeds AutoRound::needs() const {
  CalibrationNeeds needs;
  needs.quantized_input = true;
  needs.target = true;
  return needs;
}

BlockResult AutoRound::quantize(BlockJob& job) const {
  LOWBIT_CHECK(job.quantized_input != nullptr && job.target != nullptr,
               "autoround needs the block's input and target");
  return job.learning.autoround(job, options_);
}

}  // namespace lowbit
