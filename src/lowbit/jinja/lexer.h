// Cuts a template into tokens, as jinja2 3.1 does with trim_blocks and lstrip_blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lowbit/jinja/value.h"

namespace lowbit::jinja {

struct Token {
  enum class Type {
    kData,
    kBlockBegin,
    kBlockEnd,
    kVariableBegin,
    kVariableEnd,
    kName,
    kString,
    kNumber,
    kOperator,
    kEnd,
  };
  Type type = Type::kEnd;
  std::string text;  // data, name, the string's value, the operator
  Value number;      // kNumber: int or float
  Position position;
};

// The last token is kEnd. Throws TemplateError with its position on what cannot be a token.
std::vector<Token> tokenize(std::string_view source);

// Replaces Python's escape sequences in the text between quotes.
std::string unescape(std::string_view text);

}  // namespace lowbit::jinja
