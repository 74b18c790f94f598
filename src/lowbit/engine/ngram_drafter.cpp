#include "lowbit/engine/ngram_drafter.h"

#include <algorithm>

#include "lowbit/base/check.h"

namespace lowbit {

namespace {

constexpr int64_t kGrams[] = {4, 3, 2};  // a single token says too little

uint64_t hash_of(std::span<const int32_t> gram) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const int32_t id : gram) {
    hash = (hash ^ static_cast<uint32_t>(id)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

std::span<const int32_t> gram_before(std::span<const int32_t> history, int64_t end, int64_t size) {
  return history.subspan(static_cast<size_t>(end - size), static_cast<size_t>(size));
}

}  // namespace

NgramDrafter::NgramDrafter(int64_t max_tokens) : max_tokens_(max_tokens) {
  LOWBIT_CHECK(max_tokens > 0 && max_tokens <= 64, "draft tokens must be 1 to 64, not ",
               max_tokens);
}

// Enters the grams that end before the last token: the last ones are what is looked up.
void NgramDrafter::extend(Index& index, std::span<const int32_t> history) const {
  const auto size = static_cast<int64_t>(history.size());
  for (int64_t end = index.size; end < size; ++end) {
    for (size_t g = 0; g < std::size(kGrams); ++g) {
      if (end >= kGrams[g]) index.ends[g][hash_of(gram_before(history, end, kGrams[g]))] = end;
    }
  }
  index.size = size;
}

void NgramDrafter::guess(std::span<DraftQuery> queries) {
  for (DraftQuery& query : queries) {
    Index& index = indices_[query.sequence];
    const auto size = static_cast<int64_t>(query.history.size());
    extend(index, query.history);
    for (size_t g = 0; g < std::size(kGrams) && size >= kGrams[g]; ++g) {
      const auto gram = gram_before(query.history, size, kGrams[g]);
      const auto found = index.ends[g].find(hash_of(gram));
      if (found == index.ends[g].end()) continue;
      const int64_t end = found->second;
      const auto before = gram_before(query.history, end, kGrams[g]);
      if (!std::equal(gram.begin(), gram.end(), before.begin())) continue;
      // What follows may run into the present, and then repeats.
      for (int64_t i = 0; i < query.max_tokens; ++i) {
        const int64_t from = end + i % (size - end);
        query.guess.push_back(query.history[static_cast<size_t>(from)]);
      }
      break;
    }
  }
}

}  // namespace lowbit
