// Windows: a text's tokens cut into pieces of one length, as perplexity and calibration see it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lowbit {

// Consecutive windows without overlap; what is left at the end is dropped.
inline int64_t count_windows(std::span<const int32_t> ids, int64_t size) {
  return static_cast<int64_t>(ids.size()) / size;
}
inline std::vector<int32_t> window(std::span<const int32_t> ids, int64_t size, int64_t index) {
  const auto part = ids.subspan(static_cast<size_t>(index * size), static_cast<size_t>(size));
  return {part.begin(), part.end()};
}

}  // namespace lowbit
