// Files of torch.save() that hold a flat dictionary of tensors, such as SmoothQuant's act_scales: a
// ZIP archive of uncompressed entries, one of which is a pickle. The pickle is read by an
// interpreter that knows the few instructions which describe tensors and refuses all others;
// nothing in the file is ever executed.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "lowbit/checkpoint/safetensors.h"

namespace lowbit {

// Tensors by name, as views of `file`, which `owner` keeps alive. `origin` names it in errors.
// Throws kCorruptFile on contradictions, kUnsupported for anything but contiguous tensors of F32,
// F16 or BF16 in a dictionary.
std::map<std::string, StoredTensor> parse_torch_file(std::span<const uint8_t> file,
                                                     std::shared_ptr<const void> owner,
                                                     const std::string& origin);

std::map<std::string, StoredTensor> read_torch_file(const fs::path& path);

}  // namespace lowbit
