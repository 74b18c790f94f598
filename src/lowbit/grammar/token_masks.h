// Which tokens of a vocabulary a grammar allows next.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "lowbit/grammar/matcher.h"

namespace lowbit::grammar {

// The tokens of a vocabulary as a tree of bytes. Immutable.
class TokenTrie {
 public:
  // bytes: by token id; empty ones (special tokens) are never allowed by a grammar.
  explicit TokenTrie(const std::vector<std::string>& bytes);

  // Nodes in the order of a walk that goes down before it goes on.
  struct Node {
    uint8_t byte;
    int32_t depth;         // 1: the first byte of tokens
    int32_t next;          // the node to go on with if none below this is wanted
    int32_t first, count;  // tokens that end here, in ids()
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<int32_t>& ids() const { return ids_; }
  const std::string& bytes(int32_t id) const { return bytes_[static_cast<size_t>(id)]; }
  size_t size() const { return bytes_.size(); }
  int32_t depth() const { return depth_; }

 private:
  std::vector<std::string> bytes_;
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;
  int32_t depth_ = 0;
};

// One grammar over one vocabulary, shared by all texts that follow it. Any thread.
class TokenGrammar {
 public:
  // Memory that a grammar may come to hold before it forgets what it has found out.
  static constexpr size_t kMaxBytes = 16 << 20;

  // vocab_size: bits of a mask; ends: token ids that end a text.
  TokenGrammar(Network network, std::shared_ptr<const TokenTrie> trie, std::vector<int32_t> ends,
               int64_t vocab_size);

  // A place in a text. It can always be reached again from its bytes, so states may be forgotten.
  struct Cursor {
    Matcher::State state = Matcher::kDead;
    uint64_t generation = 0;
    std::string text;  // so far
  };
  Cursor begin();
  // Bit (id % 32) of mask[id / 32]; words: [ceil(vocab_size / 32)], every one is written. Nothing
  // is allowed behind what the grammar cannot follow.
  void allowed(Cursor& cursor, std::span<uint32_t> words);
  // Goes on by the bytes of a token.
  void accept(Cursor& cursor, int32_t id);
  bool finished(Cursor& cursor);

 private:
  void refresh(Cursor& cursor);
  std::vector<uint32_t> make_mask(Matcher::State state);

  const Network network_;
  const std::shared_ptr<const TokenTrie> trie_;
  const std::vector<int32_t> ends_;
  const size_t words_;
  std::mutex mutex_;
  std::unique_ptr<Matcher> matcher_;
  uint64_t generation_ = 0;
  std::unordered_map<Matcher::State, std::vector<uint32_t>> masks_;
};

}  // namespace lowbit::grammar
