// Recipes of `lowbit compare`, and overrides: the first line is one, the rest is the recipe.
#include <algorithm>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/compare/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(text.find('\n'), text.size());
  for (const bool overridden : {false, true}) {
    try {
      const std::vector<std::string> overrides = {text.substr(0, end)};
      lowbit::parse_recipe(overridden ? text.substr(std::min(end + 1, text.size())) : text, "fuzz",
                           overridden ? overrides : std::vector<std::string>{});
    } catch (const lowbit::Error&) {
    }
  }
  return 0;
}
