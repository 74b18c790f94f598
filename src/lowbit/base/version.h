// The version of lowbit; written into files so that readers know their maker.
#pragma once

namespace lowbit {

inline constexpr const char* kVersion = LOWBIT_VERSION;  // of CMakeLists.txt

}  // namespace lowbit
