#include "lowbit/tokenizer/bpe.h"

#include <algorithm>
#include <cstring>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/byte_level.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

namespace {

constexpr size_t kShort = 64;  // symbols of a piece that are merged on the stack

// "<0x0A>"
std::string byte_piece(int byte) {
  constexpr char kHex[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
}

}  // namespace

void PairRanks::reserve(size_t count) {
  size_t capacity = 16;
  int bits = 4;
  while (capacity * 2 < count * 3 + 2) {
    capacity *= 2;
    ++bits;
  }
  slots_.assign(capacity, Slot{~uint64_t{0}, kNone});
  mask_ = capacity - 1;
  shift_ = 64 - bits;
}

void PairRanks::set(int32_t left, int32_t right, uint32_t rank) {
  const uint64_t key = key_of(left, right);
  size_t slot = slot_of(key);
  while (slots_[slot].rank != kNone && slots_[slot].key != key) slot = (slot + 1) & mask_;
  slots_[slot] = {key, rank};
}

Bpe::Bpe(const TokenizerSpec& spec, bool byte_level, const StringIndex& spelled)
    : byte_level_(byte_level),
      ignore_merges_(spec.ignore_merges),
      fuse_unk_(spec.fuse_unk),
      byte_fallback_(spec.byte_fallback),
      index_(byte_level ? &bytes_of_ : &spelled) {
  if (!spec.unk_token.empty()) {
    unk_ = spelled.find(spec.unk_token);
    LOWBIT_CHECK_KIND(unk_ >= 0, ErrorKind::kCorruptFile, "tokenizer: unk_token \"", spec.unk_token,
                      "\" is not in the vocabulary");
  }
  for (int b = 0; b < 256; ++b) byte_token_[b] = spelled.find(byte_piece(b));
  byte_symbol_.fill(-1);
  if (byte_level) index_bytes(spec);
  read_merges(spec, spelled);
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(spec.vocab.size());
}

void Bpe::index_bytes(const TokenizerSpec& spec) {
  size_t bytes = 0;
  for (const std::string& piece : spec.vocab) bytes += piece.size();
  bytes_of_.reserve(spec.vocab.size(), bytes);
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    if (spec.vocab[id].empty()) continue;
    const auto piece = from_byte_level(spec.vocab[id]);
    if (!piece) continue;  // spelled with other characters: no text can give it
    bytes_of_.insert(*piece, static_cast<int32_t>(id));
    if (piece->size() == 1) {
      byte_symbol_[static_cast<uint8_t>((*piece)[0])] = static_cast<int32_t>(id);
    }
  }
}

void Bpe::read_merges(const TokenizerSpec& spec, const StringIndex& spelled) {
  ranks_.reserve(spec.merges.size());
  merged_.reserve(spec.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    joined.assign(left).append(right);
    const int32_t left_id = spelled.find(left);
    const int32_t right_id = spelled.find(right);
    const int32_t merged = spelled.find(joined);
    LOWBIT_CHECK_KIND(left_id >= 0 && right_id >= 0 && merged >= 0, ErrorKind::kCorruptFile,
                      "tokenizer: merge ", rank, " joins \"", left, "\" and \"", right,
                      "\", but the vocabulary has no \"",
                      left_id < 0    ? left
                      : right_id < 0 ? right
                                     : joined,
                      "\"");
    ranks_.set(left_id, right_id, static_cast<uint32_t>(rank));
    merged_.push_back(merged);
  }
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const int32_t id = index_->find(piece);
  if (id >= 0 && (ignore_merges_ || whole(piece, id))) {
    ids.push_back(id);
  } else {
    encode_symbols(piece, ids);
  }
}

// Most words are one piece of the vocabulary. Whether merging them really ends there is found out
// once for each id; every thread that asks finds the same.
bool Bpe::whole(std::string_view piece, int32_t id) const {
  uint8_t state = whole_[id].load(std::memory_order_relaxed);
  if (state == 0) {
    std::vector<int32_t> ids;
    encode_symbols(piece, ids);
    state = ids.size() == 1 && ids[0] == id ? 1 : 2;
    whole_[id].store(state, std::memory_order_relaxed);
  }
  return state == 1;
}

// Calls push(id) for the symbols that merging starts from: bytes or characters of the vocabulary,
// else byte tokens, else the unknown token.
template <typename Push>
void Bpe::symbols_of(std::string_view piece, const Push& push) const {
  bool unknown = false;  // an unknown token waits, so that others may fuse with it
  const auto flush = [&] {
    if (unknown) push(unk_);
    unknown = false;
  };
  const char* at = piece.data();
  const char* end = at + piece.size();
  while (at < end) {
    const char* start = at;
    int32_t id;
    if (byte_level_) {
      id = byte_symbol_[static_cast<uint8_t>(*at++)];
    } else {
      next_character(at);
      id = index_->find({start, static_cast<size_t>(at - start)});
    }
    if (id >= 0) {
      flush();
      push(id);
      continue;
    }
    const auto has_token = [&](char c) { return byte_token_[static_cast<uint8_t>(c)] >= 0; };
    if (byte_fallback_ && !byte_level_ && std::all_of(start, at, has_token)) {
      // As in `tokenizers`, a waiting unknown token stays behind these.
      for (const char* b = start; b < at; ++b) push(byte_token_[static_cast<uint8_t>(*b)]);
      continue;
    }
    if (unk_ < 0) continue;
    if (!fuse_unk_) flush();
    unknown = true;
  }
  flush();
}

void Bpe::encode_symbols(std::string_view piece, std::vector<int32_t>& ids) const {
  // A character gives one symbol or one for each byte, so never more than there are bytes.
  if (piece.size() <= kShort) {
    int32_t symbols[kShort];
    size_t count = 0;
    symbols_of(piece, [&](int32_t id) { symbols[count++] = id; });
    count = merge_short(symbols, count);
    ids.insert(ids.end(), symbols, symbols + count);
    return;
  }
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  symbols_of(piece, [&](int32_t id) { symbols.push_back(id); });
  merge_long(symbols, ids);
}

// Looks for the best pair again and again: for few symbols faster than any queue.
size_t Bpe::merge_short(int32_t* symbols, size_t count) const {
  if (count < 2) return count;
  uint32_t ranks[kShort];  // ranks[i]: of the pair i, i + 1
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = ranks_.rank(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == PairRanks::kNone) break;
    symbols[best] = merged_[ranks[best]];
    --count;
    std::memmove(symbols + best + 1, symbols + best + 2, (count - best - 1) * sizeof(*symbols));
    if (best + 1 < count) {
      std::memmove(ranks + best + 1, ranks + best + 2, (count - best - 2) * sizeof(*ranks));
      ranks[best] = ranks_.rank(symbols[best], symbols[best + 1]);
    }
    if (best > 0) ranks[best - 1] = ranks_.rank(symbols[best - 1], symbols[best]);
  }
  return count;
}

// A heap of pairs by (rank, position) over a linked list of symbols; entries whose pair has
// changed since are skipped.
void Bpe::merge_long(std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const {
  const auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(count), previous(count), ranks(count, PairRanks::kNone);
  std::vector<uint64_t> heap;
  heap.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 == count) break;
    ranks[i] = ranks_.rank(symbols[i], symbols[i + 1]);
    if (ranks[i] != PairRanks::kNone) heap.push_back(uint64_t{ranks[i]} << 32 | i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto update = [&](uint32_t i) {
    ranks[i] = next[i] < count ? ranks_.rank(symbols[i], symbols[next[i]]) : PairRanks::kNone;
    if (ranks[i] == PairRanks::kNone) return;
    heap.push_back(uint64_t{ranks[i]} << 32 | i);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(top);
    if (ranks[at] != top >> 32) continue;
    const uint32_t right = next[at];
    symbols[at] = merged_[ranks[at]];
    symbols[right] = -1;
    ranks[right] = PairRanks::kNone;
    next[at] = next[right];
    if (next[at] < count) previous[next[at]] = at;
    update(at);
    if (at > 0) update(previous[at]);
  }
  for (const int32_t id : symbols) {
    if (id >= 0) ids.push_back(id);
  }
}

}  // namespace lowbit
