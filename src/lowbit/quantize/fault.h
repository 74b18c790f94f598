// A place where a test may end the process, to prove that a later run recovers. Called between the
// steps that change the disk.
#pragma once

namespace lowbit {

// Null outside tests. `step` says what is about to happen.
inline void (*fault_hook)(const char* step) = nullptr;

inline void fault_point(const char* step) {
  if (fault_hook != nullptr) fault_hook(step);
}

}  // namespace lowbit
