// SentencePiece's BPE knows scores of pieces, Hugging Face's knows merges: one from the other.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lowbit {

// Every way to join two pieces of the vocabulary into a third, best score first, as transformers'
// converter orders them. Only ids with `mergeable` take part. Throws kCorruptFile for a score that
// is not finite, kUnsupported for pieces that are too long.
std::vector<std::pair<std::string, std::string>> merges_from_scores(
    const std::vector<std::string>& vocab, const std::vector<double>& scores,
    const std::vector<bool>& mergeable, const std::string& origin);

// Scores that give the merges back: -0, -1, -2 ... by the first merge that makes a piece, lower
// still for pieces that no merge makes.
std::vector<double> scores_from_merges(
    const std::vector<std::string>& vocab,
    const std::vector<std::pair<std::string, std::string>>& merges);

}  // namespace lowbit
