// The pickle of a torch.save() file, reduced to what a dictionary of tensors needs.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace lowbit {

// A tensor as the pickle describes it; its bytes are entry "data/<storage>" of the archive.
struct PickledTensor {
  std::string dtype;    // "F32", "F16", "BF16"
  std::string storage;  // "0"
  int64_t offset = 0;   // elements into the storage
  std::vector<int64_t> shape;
};

// Throws kCorruptFile or kUnsupported with the byte of the instruction.
std::map<std::string, PickledTensor> parse_torch_pickle(std::span<const uint8_t> pickle,
                                                        const std::string& origin);

}  // namespace lowbit
