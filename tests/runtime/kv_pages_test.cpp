// Where the GPU's cache has its codes (runtime/cuda/kv_pages.h), against what the tensor cores
// want.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "lowbit/runtime/cuda/kv_pages.h"
#include "lowbit/runtime/kv_cache.h"

namespace lowbit::cuda {
namespace {

constexpr CacheType kCoded[] = {CacheType::kE4M3, CacheType::kInt8, CacheType::kInt4};

DType dtype_of(CacheType type) {
  return type == CacheType::kE4M3   ? DType::kE4M3
         : type == CacheType::kInt8 ? DType::kI8
                                    : DType::kI4;
}

TEST(KvPages, AreAsLargeAsTheCacheSays) {
  for (const CacheType type : kCoded) {
    for (const int dim : {2, 20, 64, 80, 96, 128, 256}) {
      const KvCacheSpec spec{1, 1, dim, 1, dtype_of(type)};
      EXPECT_EQ(page_bytes(type, dim), spec.page_bytes());
      EXPECT_EQ(row_bytes(type, dim), spec.row_bytes());
      EXPECT_EQ(page_bytes(type, dim) % 16, 0);
    }
  }
}

TEST(KvPages, HaveAPlaceForEachCode) {
  for (const CacheType type : kCoded) {
    for (const int dim : {2, 20, 64, 96, 128}) {
      for (const int which : {0, 1}) {
        std::set<std::pair<int, int>> places;
        for (int key = 0; key < 64; ++key) {
          for (int d = 0; d < dim; ++d) {
            const KvPlace place = kv_place(type, dim, which, key, d);
            EXPECT_GE(place.byte, 0);
            EXPECT_LT(place.byte, 64 * row_bytes(type, dim));
            places.insert({place.byte, place.shift});
          }
        }
        EXPECT_EQ(places.size(), static_cast<size_t>(64 * dim));
      }
    }
  }
}

TEST(KvPages, KeepTheCodesOfAByteWithOneKey) {
  for (const int dim : {2, 20, 64, 96, 128}) {
    for (const int which : {0, 1}) {
      std::set<int> seen;
      for (int i = 0; i < dim / 2; ++i) {
        const int d = lower_dimension(dim, which, i), partner = upper_partner(dim, which, d);
        seen.insert({d, partner});
        EXPECT_EQ(d / kKvGroupDims, partner / kKvGroupDims);
        for (const int key : {0, 13, 63}) {
          const KvPlace low = kv_place(CacheType::kInt4, dim, which, key, d);
          const KvPlace high = kv_place(CacheType::kInt4, dim, which, key, partner);
          EXPECT_EQ(low.byte, high.byte);
          EXPECT_EQ(low.shift, 0);
          EXPECT_EQ(high.shift, 4);
        }
      }
      EXPECT_EQ(seen.size(), static_cast<size_t>(dim));
    }
  }
}

// A register of an operand, of column `column` of the product and of elements sum, sum + 1.
struct Register {
  int column, sum;
};
// Checks that register `half` of the word, two halves, is that.
void expect_register(CacheType type, int dim, int which, int word_at, int half, const Register& r) {
  for (int i = 0; i < 2; ++i) {
    const int key = which == 0 ? r.column : r.sum + i, d = which == 0 ? r.sum + i : r.column;
    const KvPlace place = kv_place(type, dim, which, key, d);
    const int bit = type == CacheType::kInt4 ? 4 * half + 16 * i : 16 * half + 8 * i;
    EXPECT_EQ(8 * (place.byte - word_at) + place.shift, bit) << dim << " " << which;
  }
}

TEST(KvPages, HoldWhatALaneMultiplies) {
  for (const CacheType type : kCoded) {
    const bool four = type == CacheType::kInt4;
    for (const int dim : {64, 128}) {
      const int steps = dim / 16, tiles = dim / 32;
      for (int warp = 0; warp < 4; ++warp) {
        for (int lane = 0; lane < 32; ++lane) {
          const int column = lane / 4, j = lane % 4;
          for (int row = 0; row < 2; ++row) {  // keys
            for (int step = 0; step < steps; ++step) {
              const int word = (row * steps + step) / (four ? 2 : 1);
              for (int i = 0; i < 2; ++i) {
                expect_register(type, dim, 0, word_place(type, dim, warp, lane, word),
                                four ? step % 2 * 2 + i : i,
                                {warp * 16 + row * 8 + column, step * 16 + 2 * j + 8 * i});
              }
            }
          }
          for (int step = 0; step < 4; ++step) {  // values
            for (int tile = 0; tile < tiles; ++tile) {
              const int word = (step * tiles + tile) / (four ? 2 : 1);
              for (int i = 0; i < 2; ++i) {
                expect_register(type, dim, 1, word_place(type, dim, warp, lane, word),
                                four ? tile % 2 + 2 * i : i,
                                {(warp + 4 * tile) * 8 + column, step * 16 + 2 * j + 8 * i});
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lowbit::cuda
