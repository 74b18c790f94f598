#include "lowbit/engine/block_pool.h"

#include <algorithm>
#include <iterator>

#include "lowbit/base/check.h"
#include "lowbit/runtime/kv_cache.h"

namespace lowbit {

namespace {

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t size = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(size), b.begin()).first -
         a.begin();
}

bool starts_with(std::span<const int32_t> text, std::span<const int32_t> prefix) {
  return common_prefix(text, prefix) == static_cast<int64_t>(prefix.size());
}

}  // namespace

bool BlockPool::Less::operator()(std::span<const int32_t> a, std::span<const int32_t> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

BlockPool::BlockPool(int64_t blocks) : blocks_(static_cast<size_t>(blocks)) {
  for (int64_t i = blocks - 1; i >= 0; --i) free_.push_back(static_cast<int32_t>(i));
}

int64_t BlockPool::available() const { return static_cast<int64_t>(free_.size() + unused_.size()); }

int32_t BlockPool::allocate() {
  if (free_.empty()) {
    // A prefix outlives what follows it, so the first is a leaf.
    const auto leaf = std::find_if(unused_.begin(), unused_.end(),
                                   [&](int32_t block) { return at(block).children.empty(); });
    if (leaf == unused_.end()) return -1;
    unpublish(*leaf);
  }
  const int32_t block = free_.back();
  free_.pop_back();
  at(block).holders = 1;
  return block;
}

void BlockPool::hold(int32_t block) {
  Block& b = at(block);
  if (b.holders++ == 0) unused_.erase(b.unused_at);  // only a published one can be held again
}

void BlockPool::release(int32_t block) {
  Block& b = at(block);
  LOWBIT_CHECK(b.holders > 0, "block ", block, " is released, but nobody holds it");
  if (--b.holders > 0) return;
  if (b.published) {
    b.unused_at = unused_.insert(unused_.end(), block);
  } else {
    free_.push_back(block);
  }
}

// Takes a leaf out of the tree.
void BlockPool::unpublish(int32_t block) {
  Block& b = at(block);
  b.siblings->erase(b.place);
  if (b.root != nullptr && b.siblings->empty()) roots_.erase(*b.root);
  b.siblings = nullptr;
  b.root = nullptr;
  b.published = false;
  if (b.holders > 0) return;
  unused_.erase(b.unused_at);
  free_.push_back(block);
}

BlockPool::Match BlockPool::find(const std::string& root, std::span<const int32_t> ids) const {
  Match match;
  const auto found_root = roots_.find(root);
  if (found_root == roots_.end()) return match;
  const Children* children = &found_root->second;
  for (; ids.size() >= kBlockTokens; ids = ids.subspan(kBlockTokens)) {
    const auto child = children->find(ids.first(kBlockTokens));
    if (child == children->end()) break;
    match.blocks.push_back(child->second);
    children = &at(child->second).children;
  }
  // In lexicographical order the longest common prefix is with a neighbour.
  const auto consider = [&](Children::const_iterator child) {
    const int64_t common = common_prefix(child->first, ids);
    if (common <= match.partial_tokens) return;
    match.partial = child->second;
    match.partial_tokens = common;
    match.partial_whole = common == static_cast<int64_t>(child->first.size());
  };
  const auto next = children->lower_bound(ids);
  if (next != children->begin()) consider(std::prev(next));
  if (next != children->end()) consider(next);
  return match;
}

// A partial block that another one begins with is of no more use.
void BlockPool::forget_prefixes_of(Children& siblings, Children::iterator place) {
  while (place != siblings.begin()) {
    const auto before = std::prev(place);
    if (!starts_with(place->first, before->first) || at(before->second).holders > 0) return;
    unpublish(before->second);
  }
}

int32_t BlockPool::publish(const std::string& root, int32_t parent, std::span<const int32_t> tokens,
                           int32_t block) {
  Children& siblings = parent < 0 ? roots_[root] : at(parent).children;
  const auto next = siblings.lower_bound(tokens);
  if (next != siblings.end() && next->second != block && starts_with(next->first, tokens)) {
    if (tokens.size() < kBlockTokens) return block;  // the other one serves as well
    const int32_t twin = next->second;
    hold(twin);
    if (at(block).published) unpublish(block);
    release(block);
    return twin;
  }
  if (next != siblings.end() && next->second == block) return block;
  Block& b = at(block);
  const auto place = siblings.emplace_hint(next, std::vector(tokens.begin(), tokens.end()), block);
  if (b.published) b.siblings->erase(b.place);  // it has grown
  b.published = true;
  b.siblings = &siblings;
  b.place = place;
  b.root = parent < 0 ? &roots_.find(root)->first : nullptr;
  forget_prefixes_of(siblings, place);
  return block;
}

}  // namespace lowbit
