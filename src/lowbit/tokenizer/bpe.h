// Byte-pair encoding (Sennrich et al. 2015, arXiv:1508.07909): merges the adjacent pair of lowest
// rank, leftmost first, until none is left. O(n log n) in the length of a piece.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/tokenizer/string_index.h"
#include "lowbit/tokenizer/tokenizer_spec.h"

namespace lowbit {

// Ranks of pairs of ids, as a hash table that is quick to build.
class PairRanks {
 public:
  static constexpr uint32_t kNone = ~0u;

  void reserve(size_t count);
  void set(int32_t left, int32_t right, uint32_t rank);  // the last one set holds
  uint32_t rank(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].rank;
      if (slots_[slot].rank == kNone) return kNone;
    }
  }

 private:
  struct Slot {
    uint64_t key;
    uint32_t rank;  // kNone: free
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    return static_cast<size_t>((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> shift_);
  }
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

class Bpe {
 public:
  // With `byte_level` the pieces are bytes, and vocab spells them in GPT-2's alphabet. `spelled`
  // finds the ids of spec.vocab. Throws kCorruptFile for merges and an unk_token that name pieces
  // which do not exist.
  Bpe(const TokenizerSpec& spec, bool byte_level, const StringIndex& spelled);

  // Appends the ids of one piece, which is not empty.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  void index_bytes(const TokenizerSpec& spec);
  void read_merges(const TokenizerSpec& spec, const StringIndex& spelled);
  void encode_symbols(std::string_view piece, std::vector<int32_t>& ids) const;
  template <typename Push>
  void symbols_of(std::string_view piece, const Push& push) const;
  size_t merge_short(int32_t* symbols, size_t count) const;
  void merge_long(std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;
  bool whole(std::string_view piece, int32_t id) const;

  bool byte_level_;
  bool ignore_merges_;
  bool fuse_unk_;
  bool byte_fallback_;
  int32_t unk_ = -1;
  StringIndex bytes_of_;                  // with byte_level: raw bytes of every piece
  const StringIndex* index_;              // what pieces of text are looked up in
  std::array<int32_t, 256> byte_symbol_;  // with byte_level: id of a single byte, or -1
  std::array<int32_t, 256> byte_token_;   // ids of <0x00> ... <0xFF>, or -1
  PairRanks ranks_;
  std::vector<int32_t> merged_;  // by rank
  // By id: 0 not known yet, 1 BPE of the piece gives the id itself, 2 it does not.
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

}  // namespace lowbit
