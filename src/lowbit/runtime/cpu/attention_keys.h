// Which keys a query sees, block by block. In an anonymous namespace: see kernels.h.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

constexpr int64_t kKeys = 64;  // of a block

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Position of the first key that the query at `position` sees.
inline int64_t oldest(const AttentionTask& task, int64_t position) {
  return task.window > 0 && position >= task.window ? position + 1 - task.window : 0;
}

inline int64_t clamp(int64_t key) { return key < 0 ? 0 : key > kKeys ? kKeys : key; }

// The part of a block that the query at `position` sees; none if first >= last.
inline Range visible(const AttentionTask& task, int64_t position, int64_t block) {
  const int64_t start = block * kKeys;
  return {clamp(oldest(task, position) - start), clamp(position + 1 - start)};
}

inline void prefetch_bytes(const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(from + i);
}

}  // namespace
}  // namespace lowbit::cpu
