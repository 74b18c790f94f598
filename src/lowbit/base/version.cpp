#include "lowbit/base/version.h"

namespace lowbit {

const char* const kVersion = LOWBIT_VERSION;

}  // namespace lowbit
