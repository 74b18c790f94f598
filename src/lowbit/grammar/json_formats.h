// "format" of JSON schema strings.
#pragma once

#include <string>

#include "lowbit/grammar/network.h"

namespace lowbit::grammar {

// Texts of the format (some of them, where the format allows strange ones), without quotes. Throws
// kUnsupported naming a format that is not known.
Fragment json_format(Builder& builder, const std::string& format);

}  // namespace lowbit::grammar
