// Parses a template by jinja2 3.1's grammar with Hugging Face's tags (loop controls, generation),
// and `do`.
#pragma once

#include <string_view>

#include "lowbit/jinja/ast.h"

namespace lowbit::jinja {

struct Program {
  Block body;
  std::vector<std::string> names;  // of symbols
  int loop = -1;                   // the symbol of `loop`
  std::vector<int> hidden;         // symbols that begin undefined, whatever the variables: scopes.h
};

// Throws TemplateError with its position.
Program parse(std::string_view source);

}  // namespace lowbit::jinja
