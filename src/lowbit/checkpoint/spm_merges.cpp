#include "lowbit/checkpoint/spm_merges.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "lowbit/base/check.h"
#include "lowbit/base/limits.h"
#include "lowbit/tokenizer/string_index.h"

namespace lowbit {

namespace {

struct Merge {
  int32_t left, right;
  uint32_t left_length, right_length;  // characters
  double score;
};

StringIndex index_of(const std::vector<std::string>& vocab, const std::vector<bool>& wanted) {
  StringIndex index;
  index.reserve(vocab.size(), 16 * vocab.size());
  for (size_t id = 0; id < vocab.size(); ++id) {
    if (wanted[id] && !vocab[id].empty()) index.insert(vocab[id], static_cast<int32_t>(id));
  }
  return index;
}

bool starts_character(char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }

// Appends the ways to cut one piece in two, ordered by the ids of the parts.
void cut(const std::string& piece, double score, const StringIndex& index,
         std::vector<Merge>& merges) {
  const auto characters =
      static_cast<uint32_t>(std::count_if(piece.begin(), piece.end(), starts_character));
  const size_t first = merges.size();
  uint32_t left_length = 0;
  const std::string_view text(piece);
  for (size_t at = 1; at < piece.size(); ++at) {
    if (!starts_character(piece[at])) continue;
    ++left_length;
    const int32_t left = index.find(text.substr(0, at));
    if (left < 0) continue;
    const int32_t right = index.find(text.substr(at));
    if (right < 0) continue;
    merges.push_back({left, right, left_length, characters - left_length, score});
  }
  std::sort(merges.begin() + static_cast<ptrdiff_t>(first), merges.end(),
            [](const Merge& a, const Merge& b) {
              return std::pair(a.left, a.right) < std::pair(b.left, b.right);
            });
}

}  // namespace

std::vector<std::pair<std::string, std::string>> merges_from_scores(
    const std::vector<std::string>& vocab, const std::vector<double>& scores,
    const std::vector<bool>& mergeable, const std::string& origin) {
  const StringIndex index = index_of(vocab, mergeable);
  std::vector<Merge> found;
  for (size_t id = 0; id < vocab.size(); ++id) {
    if (!mergeable[id]) continue;
    LOWBIT_CHECK_KIND(std::isfinite(scores[id]), ErrorKind::kCorruptFile, origin,
                      ": the score of token ", id, " is ", scores[id]);
    LOWBIT_CHECK_KIND(vocab[id].size() <= limits::kSpmPieceBytes, ErrorKind::kUnsupported, origin,
                      ": token ", id, " has ", vocab[id].size(), " bytes, the limit is ",
                      limits::kSpmPieceBytes);
    cut(vocab[id], scores[id], index, found);
    LOWBIT_CHECK_KIND(found.size() <= limits::kMerges, ErrorKind::kUnsupported, origin,
                      ": more than ", limits::kMerges, " merges follow from the vocabulary");
  }
  std::stable_sort(found.begin(), found.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.score, a.left_length, a.right_length) >
           std::tie(b.score, b.left_length, b.right_length);
  });
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(found.size());
  for (const Merge& merge : found) merges.emplace_back(vocab[merge.left], vocab[merge.right]);
  return merges;
}

std::vector<double> scores_from_merges(
    const std::vector<std::string>& vocab,
    const std::vector<std::pair<std::string, std::string>>& merges) {
  const StringIndex index = index_of(vocab, std::vector<bool>(vocab.size(), true));
  std::vector<double> scores(vocab.size(), 1);  // 1: none yet
  double next = 0;
  for (const auto& [left, right] : merges) {
    const int32_t id = index.find(left + right);
    if (id >= 0 && scores[id] > 0) scores[id] = next--;
  }
  for (double& score : scores) {
    if (score > 0) score = next--;
  }
  return scores;
}

}  // namespace lowbit
