#include "lowbit/grammar/token_masks.h"

#include <algorithm>
#include <numeric>

#include "lowbit/base/check.h"

namespace lowbit::grammar {

TokenTrie::TokenTrie(const std::vector<std::string>& bytes) : bytes_(bytes) {
  std::vector<int32_t> sorted;
  for (size_t id = 0; id < bytes_.size(); ++id) {
    if (!bytes_[id].empty()) sorted.push_back(static_cast<int32_t>(id));
  }
  std::sort(sorted.begin(), sorted.end(),
            [&](int32_t a, int32_t b) { return this->bytes(a) < this->bytes(b); });
  std::vector<int32_t> path;  // nodes from the root to where the last token ended
  const std::string* last = nullptr;
  for (const int32_t id : sorted) {
    const std::string& token = this->bytes(id);
    size_t common = 0;
    while (last != nullptr && common < last->size() && common < token.size() &&
           (*last)[common] == token[common]) {
      ++common;
    }
    for (; path.size() > common; path.pop_back()) {
      nodes_[static_cast<size_t>(path.back())].next = static_cast<int32_t>(nodes_.size());
    }
    for (size_t i = common; i < token.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(token[i]), static_cast<int32_t>(i) + 1, 0,
                        static_cast<int32_t>(ids_.size()), 0});
    }
    ++nodes_[static_cast<size_t>(path.back())].count;  // equal tokens stand side by side
    ids_.push_back(id);
    depth_ = std::max(depth_, static_cast<int32_t>(token.size()));
    last = &token;
  }
  for (const int32_t node : path) {
    nodes_[static_cast<size_t>(node)].next = static_cast<int32_t>(nodes_.size());
  }
}

TokenGrammar::TokenGrammar(Network network, std::shared_ptr<const TokenTrie> trie,
                           std::vector<int32_t> ends, int64_t vocab_size)
    : network_(std::move(network)),
      trie_(std::move(trie)),
      ends_(std::move(ends)),
      words_(static_cast<size_t>((vocab_size + 31) / 32)),
      matcher_(std::make_unique<Matcher>(network_)) {}

TokenGrammar::Cursor TokenGrammar::begin() {
  const std::lock_guard lock(mutex_);
  return {matcher_->start(), generation_, ""};
}

// Brings a cursor to the matcher that there is now, after another has been forgotten.
void TokenGrammar::refresh(Cursor& cursor) {
  if (matcher_->bytes() + masks_.size() * words_ * 4 > kMaxBytes) {
    masks_.clear();
    matcher_ = std::make_unique<Matcher>(network_);
    ++generation_;
  }
  if (cursor.generation == generation_) return;
  cursor.generation = generation_;
  cursor.state = matcher_->start();
  for (const char byte : cursor.text) {
    cursor.state = matcher_->next(cursor.state, static_cast<uint8_t>(byte));
  }
}

std::vector<uint32_t> TokenGrammar::make_mask(Matcher::State state) {
  std::vector<uint32_t> mask(words_);
  const auto set = [&](int32_t id) {
    const auto word = static_cast<size_t>(id) / 32;
    if (word < words_) mask[word] |= 1u << (static_cast<uint32_t>(id) % 32);
  };
  if (matcher_->accepts(state)) {
    for (const int32_t id : ends_) set(id);
  }
  const auto& nodes = trie_->nodes();
  std::vector<Matcher::State> states(static_cast<size_t>(trie_->depth()) + 1, state);
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const auto depth = static_cast<size_t>(node.depth);
    // A grammar that makes new states without end is cut: it loses tokens, never its validity.
    const bool full = matcher_->bytes() > 2 * kMaxBytes;
    states[depth] = full ? Matcher::kDead : matcher_->next(states[depth - 1], node.byte);
    if (states[depth] == Matcher::kDead) {
      i = static_cast<size_t>(node.next);
      continue;
    }
    for (int32_t k = 0; k < node.count; ++k) set(trie_->ids()[static_cast<size_t>(node.first + k)]);
    ++i;
  }
  return mask;
}

void TokenGrammar::allowed(Cursor& cursor, std::span<uint32_t> words) {
  const std::lock_guard lock(mutex_);
  std::fill(words.begin(), words.end(), 0u);
  try {
    refresh(cursor);
    if (cursor.state == Matcher::kDead) return;
    auto found = masks_.find(cursor.state);
    if (found == masks_.end()) {
      found = masks_.emplace(cursor.state, make_mask(cursor.state)).first;
    }
    std::copy_n(found->second.begin(), std::min(words.size(), words_), words.begin());
  } catch (const Error&) {  // too ambiguous or too deep from here on
    cursor.state = Matcher::kDead;
  }
}

void TokenGrammar::accept(Cursor& cursor, int32_t id) {
  const std::lock_guard lock(mutex_);
  try {
    refresh(cursor);
    const std::string& bytes = trie_->bytes(id);
    cursor.text += bytes;
    for (const char byte : bytes) {
      cursor.state = matcher_->next(cursor.state, static_cast<uint8_t>(byte));
    }
  } catch (const Error&) {
    cursor.state = Matcher::kDead;
  }
}

bool TokenGrammar::finished(Cursor& cursor) {
  const std::lock_guard lock(mutex_);
  try {
    refresh(cursor);
  } catch (const Error&) {
    cursor.state = Matcher::kDead;
  }
  return matcher_->finished(cursor.state);
}

}  // namespace lowbit::grammar
