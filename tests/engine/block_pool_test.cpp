#include "lowbit/engine/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lowbit/runtime/kv_cache.h"
#include "support/random.h"

namespace lowbit {
namespace {

using Ids = std::vector<int32_t>;

Ids text(int64_t count, int32_t first = 0) {
  Ids ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(first + static_cast<int32_t>(i));
  return ids;
}

// Computes a text and lets go of it, as a sequence does.
void remember(BlockPool& pool, const Ids& ids, const std::string& root = "") {
  Ids table;
  for (size_t at = 0; at < ids.size(); at += kBlockTokens) {
    const size_t count = std::min<size_t>(kBlockTokens, ids.size() - at);
    const int32_t block = pool.allocate();
    ASSERT_GE(block, 0);
    table.push_back(
        pool.publish(root, at == 0 ? -1 : table.back(), std::span(ids).subspan(at, count), block));
  }
  while (!table.empty()) {
    pool.release(table.back());
    table.pop_back();
  }
}

int64_t known(const BlockPool& pool, const Ids& ids, const std::string& root = "") {
  const BlockPool::Match match = pool.find(root, ids);
  return static_cast<int64_t>(match.blocks.size()) * kBlockTokens + match.partial_tokens;
}

TEST(BlockPool, FindsTheLongestKnownPrefixUnderItsRoot) {
  BlockPool pool(8);
  remember(pool, text(150));
  EXPECT_EQ(pool.held(), 0);
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_EQ(known(pool, text(400)), 150);
  EXPECT_EQ(known(pool, text(140)), 140);
  EXPECT_EQ(known(pool, text(64)), 64);
  EXPECT_EQ(known(pool, text(10)), 10);
  EXPECT_EQ(known(pool, {}), 0);
  EXPECT_EQ(known(pool, text(10, 1)), 0);
  EXPECT_EQ(known(pool, text(150), "salt"), 0);
  Ids other = text(150);
  other[100] = -1;
  EXPECT_EQ(known(pool, other), 100);
}

TEST(BlockPool, ATwinTakesThePlaceOfAFullBlock) {
  BlockPool pool(8);
  const Ids ids = text(64);
  const int32_t first = pool.publish("", -1, ids, pool.allocate());
  const int32_t second = pool.publish("", -1, ids, pool.allocate());
  EXPECT_EQ(first, second);
  EXPECT_EQ(pool.held(), 1);
  pool.release(first);
  EXPECT_EQ(pool.held(), 1);
  pool.release(first);
  EXPECT_EQ(pool.held(), 0);
  EXPECT_THROW(pool.release(first), Error);
}

TEST(BlockPool, APartialBlockGrows) {
  BlockPool pool(8);
  const int32_t block = pool.allocate();
  EXPECT_EQ(pool.publish("", -1, text(10), block), block);
  EXPECT_EQ(pool.publish("", -1, text(30), block), block);
  EXPECT_EQ(known(pool, text(64)), 30);
  EXPECT_TRUE(pool.find("", text(64)).partial_whole);
  EXPECT_FALSE(pool.find("", text(29)).partial_whole);
  EXPECT_EQ(pool.publish("", -1, text(64), block), block);
  EXPECT_EQ(known(pool, text(70)), 64);
  pool.release(block);
  EXPECT_EQ(pool.cached(), 1);
}

TEST(BlockPool, WhatAnotherBlockBeginsWithIsNotKeptTwice) {
  BlockPool pool(8);
  remember(pool, text(20));
  remember(pool, text(40));
  EXPECT_EQ(pool.cached(), 1);
  remember(pool, text(30));
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(known(pool, text(64)), 40);
}

TEST(BlockPool, TheLeastRecentlyUsedIsForgottenFirstAndLeavesBeforePrefixes) {
  BlockPool pool(6);
  remember(pool, text(128));
  remember(pool, text(128, 1000));
  EXPECT_EQ(pool.available(), 6);
  remember(pool, text(192, 2000));
  EXPECT_EQ(known(pool, text(128)), 64);  // its second block went
  EXPECT_EQ(known(pool, text(128, 1000)), 128);
  remember(pool, text(64, 3000));
  EXPECT_EQ(known(pool, text(128)), 0);
  EXPECT_EQ(known(pool, text(128, 1000)), 128);
}

TEST(BlockPool, GivesOutEveryBlockOnceAndThenNone) {
  BlockPool pool(5);
  remember(pool, text(200));
  std::set<int32_t> blocks;
  for (int i = 0; i < 5; ++i) blocks.insert(pool.allocate());
  EXPECT_EQ(blocks.size(), 5u);
  EXPECT_EQ(pool.allocate(), -1);
  EXPECT_EQ(known(pool, text(200)), 0);
}

// Random texts with common prefixes, some held, against a list of everything that was published:
// what is found is always true, and nothing leaks.
TEST(BlockPool, NeverFindsWhatIsNotThere) {
  test::Random random(3);
  for (int round = 0; round < 20; ++round) {
    BlockPool pool(24);
    std::vector<Ids> content(24);  // tokens of each block, as if they were its keys and values
    std::vector<Ids> tables;
    for (int turn = 0; turn < 400; ++turn) {
      if (!tables.empty() && random.below(3) == 0) {
        std::swap(tables[static_cast<size_t>(random.below(int64_t(tables.size())))], tables.back());
        for (; !tables.back().empty(); tables.back().pop_back()) pool.release(tables.back().back());
        tables.pop_back();
        continue;
      }
      Ids ids;
      for (int64_t left = 1 + random.below(250); left > 0; --left) {
        ids.push_back(static_cast<int32_t>(random.below(40) == 0 ? random.below(3) : 0));
      }
      const BlockPool::Match match = pool.find("", ids);
      Ids table = match.blocks;
      for (size_t i = 0; i < table.size(); ++i) {
        const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(i * kBlockTokens);
        ASSERT_EQ(content[static_cast<size_t>(table[i])], Ids(begin, begin + kBlockTokens));
        pool.hold(table[i]);
      }
      if (match.partial >= 0) {
        const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(table.size() * kBlockTokens);
        const Ids& there = content[static_cast<size_t>(match.partial)];
        ASSERT_TRUE(std::equal(begin, begin + match.partial_tokens, there.begin()));
      }
      for (size_t at = table.size() * kBlockTokens; at < ids.size(); at += kBlockTokens) {
        const auto rest = std::span(ids).subspan(at);
        const auto tokens = rest.first(std::min<size_t>(kBlockTokens, rest.size()));
        const int32_t block = pool.allocate();
        if (block < 0) break;
        content[static_cast<size_t>(block)].assign(tokens.begin(), tokens.end());
        table.push_back(pool.publish("", table.empty() ? -1 : table.back(), tokens, block));
      }
      tables.push_back(table);
    }
    for (Ids& table : tables) {
      for (; !table.empty(); table.pop_back()) pool.release(table.back());
    }
    EXPECT_EQ(pool.held(), 0);
    EXPECT_EQ(pool.available(), 24);
  }
}

}  // namespace
}  // namespace lowbit
