// A Jinja template: parsed once, rendered many times, from any thread.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/base/json.h"
#include "lowbit/jinja/parser.h"

namespace lowbit::jinja {

class Template {
 public:
  // Throws Error with line and column: kCorruptFile for what jinja2 refuses too, kUnsupported for
  // exceeded limits.
  explicit Template(const std::string& source);

  // Variables by name. now: what strftime_now sees; absent: the clock. Throws as the constructor,
  // and kInvalidArgument with the template's message from raise_exception.
  std::string render(const std::vector<std::pair<std::string, OrderedJson>>& variables,
                     std::optional<std::time_t> now = std::nullopt) const;

 private:
  Program program_;
};

}  // namespace lowbit::jinja
