// Pre-tokenizers of tokenizer.json: they cut text into the pieces that BPE works on, one by one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/tokenizer/pattern.h"

namespace lowbit {

// Text and the parts of it that are left, in order. A step may replace both.
struct Pieces {
  std::string_view text;    // the caller's, or `owned`
  std::string owned;        // set by steps that change the text
  std::vector<Span> spans;  // none of them empty
  bool at_start = false;    // spans[0] starts where the whole input starts
};

class PreTokenizer {
 public:
  // `component` is tokenizer.json's "pre_tokenizer" (null: none). Throws kUnsupported naming one
  // that lowbit does not know.
  PreTokenizer(const Json& component, const std::string& origin);
  ~PreTokenizer();

  // Whether the last step is ByteLevel: then the bytes of a piece are the symbols of BPE, and
  // split() leaves out spelling them in GPT-2's alphabet.
  bool byte_level() const { return byte_level_; }
  // Spells them after all, for a vocabulary that needs it.
  void spell_bytes();

  void split(Pieces& pieces) const;

  class Step;

 private:
  void add(const Json& component, const std::string& origin, int depth);
  void add_byte_level(const Json& component, const std::string& origin);
  std::vector<std::unique_ptr<Step>> steps_;
  bool byte_level_ = false;
};

}  // namespace lowbit
