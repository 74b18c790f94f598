// The version of lowbit; written into files so that readers know their maker.
#pragma once

namespace lowbit {

extern const char* const kVersion;  // "0.1.0", as in CMakeLists.txt

}  // namespace lowbit
