// Problems: several faults of one checkpoint, told in one error.
#pragma once

#include <string>
#include <vector>

#include "lowbit/base/check.h"

namespace lowbit {

class Problems {
 public:
  template <typename... Parts>
  void add(const Parts&... parts) {
    if (++count_ <= kShown) lines_ += concat("\n  ", parts...);
  }

  // Throws the first 20 if there is any: "summary:", then a line for each.
  void check(ErrorKind kind, const std::string& summary) const {
    if (count_ == 0) return;
    fail(kind, summary, lines_,
         count_ > kShown ? concat("\n  and ", count_ - kShown, " more") : std::string());
  }

 private:
  static constexpr size_t kShown = 20;
  size_t count_ = 0;
  std::string lines_;
};

}  // namespace lowbit
