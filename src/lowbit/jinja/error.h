// What goes wrong inside a template: raised anywhere below, given its line and column by
// Template::render or Template::parse.
#pragma once

#include <string>

#include "lowbit/base/check.h"

namespace lowbit::jinja {

// 1-based; columns count code points. line 0: not known (yet).
struct Position {
  int line = 0;
  int column = 0;
};

class TemplateError : public Error {
 public:
  TemplateError(ErrorKind kind, const std::string& message, Position position = {})
      : Error(kind, message), position_(position) {}
  Position position() const { return position_; }

 private:
  Position position_;
};

// What Python or jinja2 would refuse too; messages begin with the name of its exception.
template <typename... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  throw TemplateError(ErrorKind::kCorruptFile, concat(parts...));
}

// What jinja2 can do and lowbit cannot, and exceeded limits.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw TemplateError(ErrorKind::kUnsupported, concat(parts...));
}

}  // namespace lowbit::jinja
