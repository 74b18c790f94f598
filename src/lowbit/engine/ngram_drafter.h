// NgramDrafter: prompt look-up (github.com/apoorvumang/prompt-lookup-decoding). Guesses that what
// followed the last few tokens when they stood in the text before will follow again.
#pragma once

#include <string>
#include <unordered_map>

#include "lowbit/engine/drafter.h"

namespace lowbit {

class NgramDrafter : public Drafter {
 public:
  explicit NgramDrafter(int64_t max_tokens = 8);
  std::string name() const override { return "ngram"; }
  int64_t max_tokens() const override { return max_tokens_; }
  void guess(std::span<DraftQuery> queries) override;
  void forget(uint64_t sequence) override { indices_.erase(sequence); }

 private:
  // Where the grams of a sequence ended last; grows with it.
  struct Index {
    int64_t size = 0;                               // tokens seen
    std::unordered_map<uint64_t, int64_t> ends[3];  // by length of the gram, longest first
  };
  void extend(Index& index, std::span<const int32_t> history) const;

  int64_t max_tokens_;
  std::unordered_map<uint64_t, Index> indices_;
};

}  // namespace lowbit
