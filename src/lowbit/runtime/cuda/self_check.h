// The kernels for many tokens rest on a property that no document promises: that wgmma rounds as
// mma.sync does. A backend asks its device once, on small problems, before it relies on it.
#pragma once

#include <functional>

#include "lowbit/runtime/backend.h"

namespace lowbit::cuda {

// Whether the results, which `choose` switches between, are the same bits: of products (true:
// wgmma) in every layout that uses it.
bool products_agree(Backend& backend, const std::function<void(bool wgmma)>& choose);
// Whether products of rounded inputs (false: by kernels that know nothing of it) have the same bits
// for any number of tokens, and about the same results.
bool rounded_products_agree(Backend& backend, const std::function<void(bool rounded)>& choose);
// Whether attention by tensor cores makes the same bits of a whole prompt and of its parts, and
// about what the plain kernel makes (true: plain).
bool attention_agrees(Backend& backend, const std::function<void(bool plain)>& choose);

}  // namespace lowbit::cuda
