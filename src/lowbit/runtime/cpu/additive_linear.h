// Linears whose weights are sums of vectors from codebooks (Code::kAdditive): 2 bits a weight that
// are expanded tile by tile whenever they are multiplied.
#pragma once

#include <memory>
#include <vector>

#include "lowbit/runtime/cpu/linear.h"

namespace lowbit::cpu {

// Whether all parts are kAdditive.
bool are_additive(const std::vector<LinearWeight>& parts);

// The same sums as layout f32 gives, bit for bit, from codes that stay as they are.
std::unique_ptr<Linear> make_additive_linear(std::vector<LinearWeight> parts,
                                             std::shared_ptr<LinearEnvironment> environment);

}  // namespace lowbit::cpu
