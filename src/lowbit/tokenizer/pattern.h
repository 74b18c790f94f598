// What splits and replaces text: a literal, a regular expression, or one of the famous regular
// expressions of GPT-2, Llama-3 and Qwen2, which are matched by hand-written code.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

// A half-open range of bytes of some text.
struct Span {
  uint32_t begin;
  uint32_t end;
};

class Pattern {
 public:
  virtual ~Pattern() = default;
  // Appends the matches in valid UTF-8 `text`, left to right, without overlap; they may be empty.
  // Throws kUnsupported if a regular expression takes too long.
  virtual void find(std::string_view text, std::vector<Span>& matches) const = 0;
};

inline constexpr char kGpt2Regex[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr char kLlama3Regex[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr char kQwen2Regex[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Throws kUnsupported for an expression in a syntax that is not understood. `allow_scanners` false
// always uses PCRE2 (to test the hand-written ones against).
std::unique_ptr<Pattern> regex_pattern(const std::string& source, const std::string& origin,
                                       bool allow_scanners = true);
std::unique_ptr<Pattern> literal_pattern(const std::string& literal);

// {"String": "..."} or {"Regex": "..."} or a plain string, as tokenizer.json has them.
std::unique_ptr<Pattern> parse_pattern(const Json& pattern, const std::string& origin);

}  // namespace lowbit
