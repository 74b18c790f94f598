// A map from strings to ids that is quick to build and to ask: open addressing, all keys in one
// block of memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace lowbit {

class StringIndex {
 public:
  // Room for `count` keys of `bytes` bytes in all.
  void reserve(size_t count, size_t bytes) {
    bytes_.reserve(bytes);
    entries_.reserve(count);
    rehash(count);
  }

  // False if the key is there already; then nothing changes.
  bool insert(std::string_view key, int32_t id) {
    if ((entries_.size() + 1) * 2 > slots_.size()) rehash(entries_.size() + 1);
    const uint64_t hash = hash_of(key);
    const size_t slot = slot_of(key, hash);
    if (slots_[slot].entry >= 0) return false;
    slots_[slot] = {static_cast<uint32_t>(hash), static_cast<int32_t>(entries_.size())};
    entries_.push_back({bytes_.size(), static_cast<uint32_t>(key.size()), id});
    bytes_.append(key);
    if (key.size() > longest_) longest_ = key.size();
    return true;
  }

  // The id of a key, -1 if there is none.
  int32_t find(std::string_view key) const {
    if (key.size() > longest_ || slots_.empty()) return -1;
    const int32_t entry = slots_[slot_of(key, hash_of(key))].entry;
    return entry < 0 ? -1 : entries_[entry].id;
  }

  size_t size() const { return entries_.size(); }
  size_t longest() const { return longest_; }  // bytes of the longest key

 private:
  struct Slot {
    uint32_t hash;
    int32_t entry;  // -1: free
  };
  struct Entry {
    size_t begin;
    uint32_t length;
    int32_t id;
  };

  static uint64_t mix(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  static uint64_t hash_of(std::string_view key) {
    uint64_t hash = 0x9e3779b97f4a7c15u ^ key.size();
    const char* at = key.data();
    size_t left = key.size();
    for (; left > 8; at += 8, left -= 8) {
      uint64_t word;
      std::memcpy(&word, at, 8);
      hash = mix(hash ^ word, 0xd6e8feb86659fd93u);
    }
    uint64_t word = 0;
    if (left > 0) std::memcpy(&word, at, left);
    return mix(hash ^ word, 0xa0761d6478bd642fu ^ hash);
  }

  size_t slot_of(std::string_view key, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t slot = (hash >> 32) & mask;; slot = (slot + 1) & mask) {
      const Slot& candidate = slots_[slot];
      if (candidate.entry < 0) return slot;
      if (candidate.hash != static_cast<uint32_t>(hash)) continue;
      const Entry& entry = entries_[candidate.entry];
      if (entry.length == key.size() &&
          std::memcmp(bytes_.data() + entry.begin, key.data(), key.size()) == 0) {
        return slot;
      }
    }
  }

  void rehash(size_t count) {
    size_t capacity = 16;
    while (capacity < count * 2 + 2) capacity *= 2;
    slots_.assign(capacity, Slot{0, -1});
    for (size_t i = 0; i < entries_.size(); ++i) {
      const std::string_view key(bytes_.data() + entries_[i].begin, entries_[i].length);
      const uint64_t hash = hash_of(key);
      slots_[slot_of(key, hash)] = {static_cast<uint32_t>(hash), static_cast<int32_t>(i)};
    }
  }

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;
  size_t longest_ = 0;
};

}  // namespace lowbit
