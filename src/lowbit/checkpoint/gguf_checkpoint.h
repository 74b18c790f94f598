// A GGUF file (or the parts of a split one) as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "lowbit/checkpoint/checkpoint.h"

namespace lowbit {

// `path` of a split model is its first part, "...-00001-of-0000N.gguf". Throws Error naming what is
// missing, unsupported or damaged.
std::unique_ptr<Checkpoint> open_gguf_checkpoint(const std::string& path);

}  // namespace lowbit
