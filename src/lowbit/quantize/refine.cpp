#include "lowbit/quantize/refine.h"

namespace lowbit {

RefineOptions chosen_refinement(RefineOptions options, int bits) {
  // The fewer the bits, the more a step of a rounding changes.
  const RefineOptions usual = bits >= 4   ? RefineOptions{300, 1e-3, 2e-4}
                              : bits == 3 ? RefineOptions{400, 1e-3, 2e-4}
                                          : RefineOptions{600, 2e-4, 1e-4};
  if (options.steps == 0) options.steps = usual.steps;
  if (options.rate == 0) options.rate = usual.rate;
  if (options.range_rate == 0) options.range_rate = usual.range_rate;
  return options;
}

}  // namespace lowbit
