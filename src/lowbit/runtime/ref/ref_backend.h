// The reference backend: plain fp32, the definition of right. Slow on purpose.
#pragma once

#include <memory>

#include "lowbit/runtime/backend.h"

namespace lowbit {

// Throws kUnsupported for int8 activations.
std::unique_ptr<Backend> make_ref_backend(const BackendOptions& options);

}  // namespace lowbit
