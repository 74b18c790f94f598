// Attention over the blocks of a KV cache with the tile multiplier: online softmax block by block
// as in attention_tiles.h, over a vector type V of 16 lanes and a type Tiles for the tile
// instructions. In an anonymous namespace: see kernels.h.
//
// Tiles multiply bf16. As in kernels_amx_gemm.cpp each number is split in two, high + low, and
// a * b is taken as low * high + high * low + high * high, which loses 2^-17 of |a| * |b|; halves
// are split without loss.
//
// A row is one head of one query. Rows are columns of all tiles but the caches': scores are
// keys x rows, outputs columns x rows. So the softmax works on 16 rows, a lane each, without sums
// across lanes, weights become the second product's operand where they are, and every row's result
// is the same whichever rows share its tile.
#pragma once

#include <cstdint>

#include "lowbit/runtime/cpu/attention_keys.h"
#include "lowbit/runtime/cpu/kernels.h"

namespace lowbit::cpu {
namespace {

constexpr int64_t kTile = 16;         // rows of a tile, and 32-bit elements of one of its rows
constexpr int64_t kTileFloats = 256;  // a tile's memory, 1 KiB
constexpr int64_t kPair = 2 * kTileFloats;  // a tile of high parts, then one of low parts

inline int64_t tiles_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Parts of a task's scratch, in tiles (of floats or of bf16 in their place).
struct AmxScratch {
  int64_t q_steps;   // of 32 columns
  int64_t columns;   // tiles of 16 columns of the output
  float* q;          // [tiles of rows][q_steps] pairs: [column / 2][row][2]
  float* out;        // [tiles of rows][columns][column][row], not yet divided by sum
  float* max;        // [rows]
  float* sum;        // [rows]
  float* keys;       // [keys / 16][q_steps] pairs: [key][column]
  float* values;     // [columns][keys / 32] pairs: [column][key]
  // Of two tiles of rows:
  float* scores[2];   // [keys][row]
  float* weights[2];  // [keys / 32] pairs: [key / 2][row][2]

  AmxScratch(float* at, int64_t rows, int64_t head_dim)
      : q_steps(tiles_of(head_dim, 2 * kTile)), columns(tiles_of(head_dim, kTile)) {
    const int64_t tiles = tiles_of(rows, kTile);
    const auto take = [&](int64_t floats) {
      float* part = at;
      at += floats;
      return part;
    };
    q = take(tiles * q_steps * kPair);
    out = take(tiles * columns * kTileFloats);
    max = take(tiles * kTile);
    sum = take(tiles * kTile);
    keys = take(kKeys / kTile * q_steps * kPair);
    values = take(columns * 2 * kPair);
    scores[0] = take(kKeys * kTile);
    scores[1] = take(kKeys * kTile);
    weights[0] = take(2 * kPair);
    weights[1] = take(2 * kPair);
  }
  static int64_t size(int64_t rows, int64_t head_dim) {
    const int64_t tiles = tiles_of(rows, kTile), steps = tiles_of(head_dim, 2 * kTile);
    const int64_t columns = tiles_of(head_dim, kTile);
    return tiles * (steps * kPair + columns * kTileFloats + 2 * kTile) +
           kKeys / kTile * steps * kPair + columns * 2 * kPair + 2 * kKeys * kTile + 4 * kPair;
  }
};

// The keys or values of a block.
inline const uint16_t* page_of(const AttentionTask& task, const uint8_t* base, int64_t block) {
  return reinterpret_cast<const uint16_t*>(base + task.block_table[block] * task.block_stride);
}

// Asks for some of them ahead of their use.
inline void prefetch(const AttentionTask& task, const uint8_t* base, int64_t block, Range tokens) {
  const uint16_t* from = page_of(task, base, block) + tokens.first * task.head_dim;
  prefetch_bytes(reinterpret_cast<const uint8_t*>(from),
                 2 * (tokens.last - tokens.first) * task.head_dim);
}

// 16 halves; kWhole: all of them exist, else `count` do, and zeros stand for the others.
template <typename V, bool kWhole>
inline typename V::Float load_columns(const uint16_t* at, int64_t count) {
  if constexpr (kWhole) return V::load_halves(at);
  return V::load_halves(at, count);
}

inline int64_t part_of(int64_t total, int64_t first) {
  return total - first < 0 ? 0 : total - first < kTile ? total - first : kTile;
}

// Queries, scaled, as pairs of neighbouring columns.
template <typename V>
void start_rows(const AttentionTask& task, const AmxScratch& scratch) {
  const int64_t rows = task.queries * task.heads, dim = task.head_dim;
  const auto scale = V::floats(task.scale);
  for (int64_t tile = 0; tile * kTile < rows; ++tile) {
    for (int64_t step = 0; step < scratch.q_steps; ++step) {
      typename V::Int high[kTile], low[kTile];
      for (int64_t i = 0; i < kTile; ++i) {
        const int64_t row = tile * kTile + i, first = step * 2 * kTile;
        const bool exists = row < rows;
        const float* q =
            task.q +
            (exists ? row / task.heads * task.q_stride + row % task.heads * dim + first : 0);
        const auto part = [&](int64_t at) {
          return V::multiply(V::load_floats(q + at, exists ? part_of(dim, first + at) : 0), scale);
        };
        V::split_row(part(0), part(kTile), high[i], low[i]);
      }
      V::transpose(high);
      V::transpose(low);
      float* to = scratch.q + (tile * scratch.q_steps + step) * kPair;
      V::store_tile(to, high);
      V::store_tile(to + kTileFloats, low);
    }
    for (int64_t i = 0; i < scratch.columns * kTile; ++i) {
      V::store_floats(scratch.out + tile * scratch.columns * kTileFloats + i * kTile,
                      V::float_zero());
    }
    V::store_floats(scratch.max + tile * kTile, V::floats(-__builtin_inff()));
    V::store_floats(scratch.sum + tile * kTile, V::float_zero());
  }
}

// Keys [0, last) of a block, and their neighbours in the last tile: what is there was perhaps never
// written, but their scores are not used.
template <typename V, bool kWhole>
void load_key_tiles(const AttentionTask& task, int64_t block, int64_t last,
                    const AmxScratch& scratch) {
  const int64_t dim = task.head_dim;
  const uint16_t* keys = page_of(task, task.keys, block);
  for (int64_t key = 0; key < tiles_of(last, kTile) * kTile; ++key) {
    for (int64_t step = 0; step < scratch.q_steps; ++step) {
      const int64_t first = step * 2 * kTile;
      const uint16_t* at = keys + key * dim + first;
      typename V::Int high, low;
      V::split_row(load_columns<V, kWhole>(at, part_of(dim, first)),
                   load_columns<V, kWhole>(at + kTile, part_of(dim, first + kTile)), high, low);
      float* to =
          scratch.keys + (key / kTile * scratch.q_steps + step) * kPair + key % kTile * kTile;
      V::store_ints(to, high);
      V::store_ints(to + kTileFloats, low);
    }
  }
}

// 16 columns of the values of 32 keys, `count` of which exist. kSeen: all keys are in sight, else
// those of `seen` are.
template <typename V, bool kWhole, bool kSeen>
inline void load_value_tile(const uint16_t* values, int64_t dim, int64_t count, Range seen,
                            float* to) {
  const auto part = [&](int64_t key) {
    return kSeen || (key >= seen.first && key < seen.last)
               ? load_columns<V, kWhole>(values + key * dim, count)
               : V::float_zero();
  };
  typename V::Int high[kTile], low[kTile];
  for (int64_t i = 0; i < kTile; ++i) V::split_pairs(part(2 * i), part(2 * i + 1), high[i], low[i]);
  V::transpose(high);
  V::transpose(low);
  V::store_tile(to, high);
  V::store_tile(to + kTileFloats, low);
}

// Values of a block, zeros for keys out of sight: a weight of 0 does not hide a NaN.
template <typename V, bool kWhole>
void load_value_tiles(const AttentionTask& task, int64_t block, Range keys,
                      const AmxScratch& scratch) {
  const int64_t dim = task.head_dim;
  const uint16_t* values = page_of(task, task.values, block);
  for (int64_t step = 0; step < tiles_of(keys.last, 2 * kTile); ++step) {
    const int64_t first = step * 2 * kTile;
    const Range seen{keys.first - first, keys.last - first};
    const bool all = seen.first <= 0 && seen.last >= 2 * kTile;
    for (int64_t column = 0; column < scratch.columns; ++column) {
      const uint16_t* from = values + first * dim + column * kTile;
      const int64_t count = part_of(dim, column * kTile);
      float* to = scratch.values + (column * 2 + step) * kPair;
      if (all) {
        load_value_tile<V, kWhole, true>(from, dim, count, seen, to);
      } else {
        load_value_tile<V, kWhole, false>(from, dim, count, seen, to);
      }
    }
  }
}

// The next four functions are a unit of work for the tiles each: 12 products, which take turns at four
// sums, because a product waits long for the one before it in the same sum.

// C0 to C3 += a part of four tiles, `step` apart and `count` of them there, times tile B.
template <typename Tiles, int B>
inline void multiply_part(const float* from, int64_t step, int64_t count) {
  Tiles::template load<4>(from);
  Tiles::template dot<0, 4, B>();
  if (count > 1) {
    Tiles::template load<5>(from + step);
    Tiles::template dot<1, 5, B>();
  }
  if (count > 2) {
    Tiles::template load<4>(from + 2 * step);
    Tiles::template dot<2, 4, B>();
  }
  if (count > 3) {
    Tiles::template load<5>(from + 3 * step);
    Tiles::template dot<3, 5, B>();
  }
}

// The same for pairs of high and low parts.
template <typename Tiles>
inline void multiply_pairs(const float* from, int64_t step, int64_t count, const float* by) {
  Tiles::template load<6>(by);
  Tiles::template load<7>(by + kTileFloats);
  multiply_part<Tiles, 6>(from + kTileFloats, step, count);
  multiply_part<Tiles, 7>(from, step, count);
  multiply_part<Tiles, 6>(from, step, count);
}

// Scores of a tile of rows for all keys that have tiles: columns [32 step, 32 step + 32).
template <typename Tiles>
inline void score_rows(const AmxScratch& scratch, int64_t tile, int64_t step) {
  if (step == 0) {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  }
  multiply_pairs<Tiles>(scratch.keys + step * kPair, scratch.q_steps * kPair, 4,
                        scratch.q + (tile * scratch.q_steps + step) * kPair);
  if (step + 1 < scratch.q_steps) return;
  float* scores = scratch.scores[tile % 2];
  Tiles::template store<0>(scores);
  Tiles::template store<1>(scores + kTileFloats);
  Tiles::template store<2>(scores + 2 * kTileFloats);
  Tiles::template store<3>(scores + 3 * kTileFloats);
}

// out += values * weights for a tile of rows: columns from 64 * `group` on, keys
// [32 step, 32 step + 32) of 32 * steps.
template <typename Tiles>
inline void mix_rows(const AmxScratch& scratch, int64_t tile, int64_t group, int64_t step,
                     int64_t steps) {
  const int64_t column = group * 4, count = scratch.columns - column;
  float* to = scratch.out + (tile * scratch.columns + column) * kTileFloats;
  if (step == 0) {
    Tiles::template load<0>(to);
    if (count > 1) Tiles::template load<1>(to + kTileFloats);
    if (count > 2) Tiles::template load<2>(to + 2 * kTileFloats);
    if (count > 3) Tiles::template load<3>(to + 3 * kTileFloats);
  }
  multiply_pairs<Tiles>(scratch.values + (column * 2 + step) * kPair, 2 * kPair, count,
                        scratch.weights[tile % 2] + step * kPair);
  if (step + 1 < steps) return;
  Tiles::template store<0>(to);
  if (count > 1) Tiles::template store<1>(to + kTileFloats);
  if (count > 2) Tiles::template store<2>(to + 2 * kTileFloats);
  if (count > 3) Tiles::template store<3>(to + 3 * kTileFloats);
}

// What the tiles do while a tile of rows is softened: outputs of the one before, scores of the next;
// -1: none of these.
template <typename Tiles>
struct TileWork {
  const AmxScratch& scratch;
  int64_t mixed, scored;
  int64_t steps;  // of the values
  int64_t mixes = mixed < 0 ? 0 : tiles_of(scratch.columns, 4) * steps;
  int64_t units = mixes + (scored < 0 ? 0 : scratch.q_steps);

  // Part `part` of `parts`.
  void run(int64_t part, int64_t parts) const {
    for (int64_t unit = units * part / parts; unit < units * (part + 1) / parts; ++unit) {
      if (unit < mixes) {
        mix_rows<Tiles>(scratch, mixed, unit / steps, unit % steps, steps);
      } else {
        score_rows<Tiles>(scratch, scored, unit - mixes);
      }
    }
    Tiles::fence();
  }
};

// The keys of a block that each of 16 rows sees: [first, last). Rows that do not exist see what the
// last one does.
struct Sight {
  bool any, whole;
  alignas(64) int32_t first[kTile];
  alignas(64) int32_t last[kTile];

  Sight(const AttentionTask& task, int64_t tile, int64_t block) {
    const int64_t row = tile * kTile, start = block * kKeys;
    const int64_t rows = smaller(kTile, task.queries * task.heads - row);
    const int64_t earliest = task.position + row / task.heads;
    const int64_t latest = task.position + (row + rows - 1) / task.heads;
    any = latest >= start && oldest(task, earliest) < start + kKeys;
    whole = earliest >= start + kKeys - 1 && oldest(task, latest) <= start;
    if (!any || whole) return;
    int64_t position = earliest, left = task.heads - row % task.heads;
    for (int64_t i = 0; i < kTile; ++i) {
      const Range keys = visible(task, position, block);
      first[i] = static_cast<int32_t>(keys.first);
      last[i] = static_cast<int32_t>(keys.last);
      if (--left == 0 && position < latest) {
        ++position;
        left = task.heads;
      }
    }
  }
};

// The largest score that each row sees; hides the others.
template <typename V>
inline typename V::Float largest_scores(const Sight& sight, int64_t keys, float* scores) {
  const auto hidden = V::floats(-__builtin_inff());
  typename V::Float max[2] = {hidden, hidden};
  if (sight.whole) {
    for (int64_t key = 0; key < keys; key += 2) {
      for (int i = 0; i < 2; ++i) {
        max[i] = V::max(max[i], V::load_floats(scores + (key + i) * kTile));
      }
    }
    return V::max(max[0], max[1]);
  }
  const auto first = V::load_ints(sight.first), last = V::load_ints(sight.last);
  for (int64_t key = 0; key < keys; ++key) {
    const auto score = V::between(first, last, static_cast<int>(key),
                                  V::load_floats(scores + key * kTile), hidden);
    V::store_floats(scores + key * kTile, score);
    max[0] = V::max(max[0], score);
  }
  return max[0];
}

// What earlier blocks left of a tile of rows' output times `decay`.
template <typename V>
inline void decay_rows(const AmxScratch& scratch, int64_t tile, typename V::Float decay) {
  if (V::all_one(decay)) return;
  float* out = scratch.out + tile * scratch.columns * kTileFloats;
  for (int64_t i = 0; i < scratch.columns * kTile; ++i) {
    V::store_floats(out + i * kTile, V::multiply(V::load_floats(out + i * kTile), decay));
  }
}

// Scores of a tile of rows to weights, keys in pairs; updates max, sum and out. `work` goes on
// beside it. keys: a multiple of 32
template <typename V, typename Work>
void soften_rows(const AmxScratch& scratch, const Sight& sight, int64_t tile, int64_t keys,
                 const Work& work) {
  float *scores = scratch.scores[tile % 2], *weights = scratch.weights[tile % 2];
  const auto block_max = largest_scores<V>(sight, keys, scores);
  const auto old = V::load_floats(scratch.max + tile * kTile);
  const auto now = V::max(old, block_max);
  // Rows that have seen nothing yet: any number will do.
  const auto shift = V::finite_or_zero(now);
  const auto decay = V::exp(V::subtract(old, shift));
  decay_rows<V>(scratch, tile, decay);
  typename V::Float sums[4] = {V::float_zero(), V::float_zero(), V::float_zero(), V::float_zero()};
  for (int64_t pair = 0; pair < keys / 2; pair += 2) {
    if (pair % (kTile / 2) == 0) work.run(pair / (kTile / 2), keys / kTile);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const float* at = scores + (pair + i) * 2 * kTile;
      const auto even = V::exp(V::subtract(V::load_floats(at), shift));
      const auto odd = V::exp(V::subtract(V::load_floats(at + kTile), shift));
      sums[2 * i] = V::add(sums[2 * i], even);
      sums[2 * i + 1] = V::add(sums[2 * i + 1], odd);
      typename V::Int high, low;
      V::split_pairs(even, odd, high, low);
      float* to = weights + (pair + i) / kTile * kPair + (pair + i) % kTile * kTile;
      V::store_ints(to, high);
      V::store_ints(to + kTileFloats, low);
    }
  }
  const auto sum = V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3]));
  V::store_floats(scratch.max + tile * kTile, now);
  V::store_floats(scratch.sum + tile * kTile,
                  V::multiply_add(V::load_floats(scratch.sum + tile * kTile), decay, sum));
}

template <typename V>
void finish_rows(const AttentionTask& task, const AmxScratch& scratch) {
  const int64_t rows = task.queries * task.heads, dim = task.head_dim;
  for (int64_t tile = 0; tile * kTile < rows; ++tile) {
    const auto inverse = V::divide(V::floats(1.f), V::load_floats(scratch.sum + tile * kTile));
    for (int64_t column = 0; column < scratch.columns; ++column) {
      const float* from = scratch.out + (tile * scratch.columns + column) * kTileFloats;
      typename V::Int lanes[kTile];
      for (int64_t i = 0; i < kTile; ++i) {
        lanes[i] = V::as_ints(V::multiply(V::load_floats(from + i * kTile), inverse));
      }
      V::transpose(lanes);
      for (int64_t i = 0; i < kTile && tile * kTile + i < rows; ++i) {
        const int64_t row = tile * kTile + i;
        float* out = task.out + row / task.heads * task.out_stride + row % task.heads * dim;
        V::store_floats(out + column * kTile, V::as_floats(lanes[i]), part_of(dim, column * kTile));
      }
    }
  }
}

// One block for all tiles of rows that see any of it.
template <typename V, typename Tiles>
void attend_block(const AttentionTask& task, const AmxScratch& scratch, int64_t block,
                  int64_t last) {
  const int64_t tiles = tiles_of(task.queries * task.heads, kTile);
  const int64_t keys = tiles_of(last, 2 * kTile) * 2 * kTile, steps = keys / (2 * kTile);
  Tiles::fence();
  TileWork<Tiles>{scratch, -1, 0, steps}.run(0, 1);
  int64_t mixed = -1;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const TileWork<Tiles> work{scratch, mixed, tile + 1 < tiles ? tile + 1 : -1, steps};
    const Sight sight(task, tile, block);
    if (sight.any) {
      soften_rows<V>(scratch, sight, tile, keys, work);
      mixed = tile;
    } else {
      work.run(0, 1);
      mixed = -1;
    }
  }
  TileWork<Tiles>{scratch, mixed, -1, steps}.run(0, 1);
}

// kWhole: head_dim is a multiple of 32.
template <typename V, typename Tiles, bool kWhole>
void attend_blocks(const AttentionTask& task, const AmxScratch& scratch) {
  const int64_t last_position = task.position + task.queries - 1;
  const auto used_of = [&](int64_t block) {
    return Range{visible(task, task.position, block).first,
                 visible(task, last_position, block).last};
  };
  for (int64_t block = oldest(task, task.position) / kKeys; block <= last_position / kKeys;
       ++block) {
    const Range used = used_of(block);
    prefetch(task, task.values, block, used);
    load_key_tiles<V, kWhole>(task, block, used.last, scratch);
    if (block < last_position / kKeys) prefetch(task, task.keys, block + 1, used_of(block + 1));
    load_value_tiles<V, kWhole>(task, block, used, scratch);
    attend_block<V, Tiles>(task, scratch, block, used.last);
  }
}

// The cache holds halves.
template <typename V, typename Tiles>
void attend_with_tiles(const AttentionTask& task) {
  const AmxScratch scratch(task.scratch, task.queries * task.heads, task.head_dim);
  Tiles::configure();
  start_rows<V>(task, scratch);
  if (task.head_dim % (2 * kTile) == 0) {
    attend_blocks<V, Tiles, true>(task, scratch);
  } else {
    attend_blocks<V, Tiles, false>(task, scratch);
  }
  Tiles::fence();
  finish_rows<V>(task, scratch);
  Tiles::release();
}

}  // namespace
}  // namespace lowbit::cpu
