// Normalizers of tokenizer.json: Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip,
// Sequence.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/tokenizer/pattern.h"

namespace lowbit {

class Normalizer {
 public:
  // `component` is tokenizer.json's "normalizer" (null: none). Throws kUnsupported naming one that
  // lowbit does not know.
  Normalizer(const Json& component, const std::string& origin);
  ~Normalizer();

  bool empty() const { return steps_.empty(); }
  // `text` must be valid UTF-8; the result is.
  std::string normalize(std::string_view text) const;

  class Step;

 private:
  void add(const Json& component, const std::string& origin, int depth);
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace lowbit
