// BlockPool: who holds which block of the KV cache, and where past prefixes can be found again.
//
// Blocks whose content is known are published in a tree: a node is a block and the tokens in it,
// and its children are the blocks that followed. Lookups compare tokens, never hashes, so no
// collision can hand out foreign keys and values. A block that nobody holds stays in the tree until
// its space is needed, least recently used first.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace lowbit {

class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  int64_t total() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t available() const;  // that nobody holds, cached ones included
  int64_t held() const { return total() - available(); }
  int64_t cached() const { return static_cast<int64_t>(unused_.size()); }  // held by nobody

  // A block held once, or -1 if all are held. May forget a cached one.
  int32_t allocate();
  void hold(int32_t block);
  // The last holder's release keeps a published block for lookups. A sequence releases its blocks
  // last to first, so that prefixes outlive what follows them.
  void release(int32_t block);
  bool held(int32_t block) const { return at(block).holders > 0; }

  struct Match {
    std::vector<int32_t> blocks;  // full ones, in order
    int32_t partial = -1;         // a block that begins with the next `partial_tokens` ids
    int64_t partial_tokens = 0;
    bool partial_whole = false;  // it holds nothing else: who holds it alone may append to it
  };
  // The longest known prefix of ids under `root` (prefixes of different roots are never shared).
  // Holds nothing.
  Match find(const std::string& root, std::span<const int32_t> ids) const;

  // Says that `block` holds `tokens` and follows `parent`, a published full block (-1: begins the
  // text). A full block that is already known is released and its twin, held, is returned in its
  // place; otherwise returns `block`. A partial block may grow and be published again; its holder
  // may append to it meanwhile.
  int32_t publish(const std::string& root, int32_t parent, std::span<const int32_t> tokens,
                  int32_t block);

 private:
  struct Less {
    using is_transparent = void;
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
  };
  using Children = std::map<std::vector<int32_t>, int32_t, Less>;
  struct Block {
    int holders = 0;
    bool published = false;
    Children* siblings = nullptr;            // where it is listed, if published
    Children::iterator place;                // in siblings
    const std::string* root = nullptr;       // if it begins a text
    Children children;                       // full blocks only
    std::list<int32_t>::iterator unused_at;  // if published and not held
  };

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& at(int32_t block) const { return blocks_[static_cast<size_t>(block)]; }
  void unpublish(int32_t block);
  void forget_prefixes_of(Children& siblings, Children::iterator place);

  std::vector<Block> blocks_;
  std::vector<int32_t> free_;              // neither held nor published
  std::list<int32_t> unused_;              // published, not held; least recently used first
  std::map<std::string, Children> roots_;  // none is empty
};

}  // namespace lowbit
