// y = x * W^T for inputs rounded to 8 bits, any number of tokens: 8-bit wgmma.
//
// Work      A cluster's two blocks take tiles of 128 rows each x 16 to 256 tokens. Two warps of a
//           block copy units of 128 columns into a ring in shared memory, each half of the inputs
//           to both blocks; two groups of four warps multiply 64 rows each, codes in registers.
//           Tiles that would leave multiprocessors idle are cut along the columns: who has the
//           first pieces adds what the others leave in memory.
// Numerics  See rounded.h. Outliers are multiplied last, on top of the scaled sums.
// Bound     Few tokens: bytes / HBM bandwidth. Many: 2 * rows * cols * tokens / the tensor cores'.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "lowbit/runtime/cuda/launch.cuh"
#include "lowbit/runtime/cuda/rounded.h"
#include "lowbit/runtime/cuda/rounded_sm90.cuh"
#include "lowbit/runtime/cuda/wide.cuh"

#pragma nv_diag_suppress 177  // unused: for other architectures the kernels have no body

namespace lowbit::cuda {

namespace {

constexpr int kCluster = 2;
constexpr int kGroups = 2;  // of four warps that multiply
constexpr int kThreads = (kGroups + 1) * 128;
constexpr int kTiles = kGroups * 4;  // of 16 rows
constexpr int kBlockRows = kTiles * kTileRows;
constexpr int kColumnGroup = 8;  // tiles of columns that share rows in the L2 cache
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
constexpr int kRowBytes = kUnitCols;     // of a token's inputs of a unit
constexpr int kOutlierTileBytes = 2048;  // of halves, 16 rows x kOutlierCols

// What a kernel is compiled for. kGrouped: scales of groups of columns.
template <Storage kStorage_, bool kGrouped_, int kColumns_>
struct Kind {
  static constexpr Storage kStorage = kStorage_;
  static constexpr bool kGrouped = kGrouped_;
  static constexpr int kColumns = kColumns_;
  static constexpr bool kInteger = is_integer(kStorage);
  static constexpr bool kFolds = !kInteger || kGrouped;  // fp32 sums of units' sums
  static constexpr int kPieces = pieces_of(kFolds);
  static constexpr Product kProduct = kInteger ? Product::kInt8 : Product::kE4M3;
  using Sum = std::conditional_t<kInteger, int32_t, float>;
  using Raw = Sum[kColumns / 2];       // as wgmma leaves them
  using Floats = float[kColumns / 2];  // see Sums in wide.cuh
};

// A stage in shared memory: [inputs][codes][records of scales].
struct StageLayout {
  int codes, records, bytes, code_bytes, record_bytes;

  StageLayout(const PackedMatrix& m, bool grouped, int columns, bool outliers)
      : codes(columns * kRowBytes),
        code_bytes(lane_words(m.storage) * 512),
        record_bytes(grouped ? m.record_bytes : 0) {
    records = codes + kTiles * (outliers ? std::max(code_bytes, kOutlierTileBytes) : code_bytes);
    bytes = (records + kTiles * record_bytes + 1023) / 1024 * 1024;
  }
};

struct RoundedProduct {
  RoundedMaps maps;
  PackedMatrix m;
  RoundedInput x;
  RoundedPlan plan;
  RoundedShare share;
  StageLayout stage;
  int tokens, outlier_units, stages;
  float* y;
  int64_t y_stride;
};

template <typename K>
__device__ inline int first_unit(const PackedMatrix& m, int piece) {
  return piece * m.units / K::kPieces;
}

// Pieces [first, last) of a tile that a cluster takes. Who has the first piece finishes the tile.
struct Item {
  int tile = 0, first = 0, last = 0;
  __device__ bool finishes() const { return first == 0; }
};

// The items of a cluster: of its run of the split tiles' pieces those that end a tile, whole tiles,
// then the rest of the run, whose last tile others have begun to end by then.
template <int kPieces>
class Walk {
 public:
  __device__ explicit Walk(const RoundedPlan& plan) : plan_(plan) {
    const int cluster = static_cast<int>(blockIdx.x) / kCluster;
    piece_ = begin(plan, cluster);
    end_ = begin(plan, cluster + 1);
    whole_ = plan.split_tiles + cluster;
  }
  __device__ bool next(Item& item) {
    const bool whole = whole_ < plan_.tiles();
    if (piece_ < end_ && (piece_ % kPieces != 0 || !whole)) {
      item.tile = piece_ / kPieces;
      item.first = piece_ % kPieces;
      item.last = min(kPieces, item.first + end_ - piece_);
      piece_ += item.last - item.first;
      return true;
    }
    item = {whole_, 0, kPieces};
    whole_ += plan_.clusters;
    return whole;
  }
  // Of the block's tile, in tiles of 16 rows and in columns.
  __device__ void place(const Item& item, int columns, int& tile, int& column) const {
    const int group = item.tile / (kColumnGroup * plan_.row_pairs);
    const int wide = min(kColumnGroup, plan_.column_tiles - group * kColumnGroup);
    const int within = item.tile - group * kColumnGroup * plan_.row_pairs;
    tile = (within / wide * kCluster + static_cast<int>(blockIdx.x) % kCluster) * kTiles;
    column = (group * kColumnGroup + within % wide) * columns;
  }
  // The first of the split tiles' pieces that a cluster takes.
  static __device__ int begin(const RoundedPlan& plan, int cluster) {
    if (cluster >= plan.split_clusters) return plan.split_tiles * kPieces;
    return cluster * plan.split_tiles * kPieces / plan.split_clusters;
  }

 private:
  const RoundedPlan& plan_;
  int piece_, end_, whole_;
};

// Codes and scales, by one thread.
template <typename K>
__device__ void produce_weights(const RoundedProduct& p, uint8_t* memory, uint64_t* full,
                                uint64_t* empty) {
  Slot slot{p.stages};
  Walk<K::kPieces> walk(p.plan);
  const int unit_words = p.stage.code_bytes / 8, record_words = p.stage.record_bytes / 8;
  for (Item item; walk.next(item);) {
    int tile, column;
    walk.place(item, K::kColumns, tile, column);
    const int end = first_unit<K>(p.m, item.last);
#pragma unroll 1
    for (int unit = first_unit<K>(p.m, item.first); unit < end; ++unit, slot.next()) {
      uint8_t* stage = memory + slot.index * p.stage.bytes;
      uint64_t* barrier = full + slot.index;
      barrier_wait(empty + slot.index, slot.phase ^ 1);
      barrier_expect(barrier, kTiles * (p.stage.code_bytes + p.stage.record_bytes));
      copy_box(stage + p.stage.codes, &p.maps.codes, unit_place(p.m.units, unit) * unit_words, tile,
               barrier);
      if constexpr (K::kGrouped) {
        copy_box(stage + p.stage.records, &p.maps.records,
                 (unit >> p.m.record_shift) * record_words, tile, barrier);
      }
    }
    if (!item.finishes()) continue;
#pragma unroll 1
    for (int unit = 0; unit < p.outlier_units; ++unit, slot.next()) {
      uint64_t* barrier = full + slot.index;
      barrier_wait(empty + slot.index, slot.phase ^ 1);
      barrier_expect(barrier, kTiles * kOutlierTileBytes);
      copy_box(memory + slot.index * p.stage.bytes + p.stage.codes, &p.maps.outliers,
               unit * (kOutlierTileBytes / 8), tile, barrier);
    }
  }
}

// Inputs, each block half of them for both.
template <typename K>
__device__ void produce_inputs(const RoundedProduct& p, uint8_t* memory, uint64_t* full,
                               uint64_t* empty) {
  constexpr int kHalf = K::kColumns * kRowBytes / kCluster;
  const int half = static_cast<int>(blockIdx.x) % kCluster * kHalf;
  const int64_t stride = p.x.stride * kRowBytes;
  Slot slot{p.stages};
  Walk<K::kPieces> walk(p.plan);
  const auto copy = [&](const uint8_t* from) {
    uint64_t* barrier = full + slot.index;
    barrier_wait(empty + slot.index, slot.phase ^ 1);
    barrier_expect(barrier, kCluster * kHalf);
    copy_bulk_to(memory + slot.index * p.stage.bytes + half, from + half, kHalf, barrier,
                 (1 << kCluster) - 1);
    slot.next();
  };
  for (Item item; walk.next(item);) {
    int tile, column;
    walk.place(item, K::kColumns, tile, column);
    const int end = first_unit<K>(p.m, item.last);
#pragma unroll 1
    for (int unit = first_unit<K>(p.m, item.first); unit < end; ++unit) {
      copy(p.x.codes + unit * stride + column * kRowBytes);
    }
    if (!item.finishes()) continue;
#pragma unroll 1
    for (int unit = 0; unit < p.outlier_units; ++unit) {
      copy(p.x.outliers + unit * stride + column * kRowBytes);
    }
  }
}

// A lane's codes of 32 columns as m16n8k32 wants them: of rows lane / 4 and lane / 4 + 8.
using Step = uint32_t[4];

// The codes of a unit; integers around 0, those of 4 bits 16 times as large.
template <Storage kStorage>
__device__ inline void load_unit(const uint8_t* codes, int lane, Step (&a)[4]) {
  constexpr uint32_t kSigns = 0x80808080u, kUpper = 0xf0f0f0f0u;
  if constexpr (kStorage == Storage::kInt4) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 w = *reinterpret_cast<const uint4*>(codes + i * 512 + lane * 16);
      const uint32_t rows[2][2] = {{w.x, w.z}, {w.y, w.w}};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          a[2 * i + j][row] = (rows[j][row] << 4 ^ kSigns) & kUpper;
          a[2 * i + j][row + 2] = (rows[j][row] ^ kSigns) & kUpper;
        }
      }
    }
  } else {
    constexpr uint32_t kFlip = kStorage == Storage::kInt8 ? kSigns : 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 w = *reinterpret_cast<const uint4*>(codes + i * 512 + lane * 16);
      a[i][0] = w.x ^ kFlip, a[i][1] = w.z ^ kFlip;
      a[i][2] = w.y ^ kFlip, a[i][3] = w.w ^ kFlip;
    }
  }
}

// What a group of four warps has of the ring.
struct Ring {
  const uint8_t* memory;
  uint64_t *full, *empty;
  int stage_bytes, lane;
  Slot slot;

  __device__ const uint8_t* wait() const {
    barrier_wait(full + slot.index, slot.phase);
    return memory + slot.index * stage_bytes;
  }
  __device__ void release(int index) const {
    __syncwarp();
    if (lane < kCluster) barrier_arrive(empty + index, lane);
  }
};

// Where a group's inputs, and a warp's codes and scales, lie in a stage.
struct WarpPlace {
  int codes, outlier_codes, record;
};

// Adds the products of units; a unit's codes are read while those before it are multiplied.
template <typename K>
__device__ void add_units(Ring& ring, const WarpPlace& at, int units, typename K::Raw& sums) {
  Step a[2][4];
  int before = -1;  // the stage that is being multiplied
  const auto add = [&](Step(&codes)[4]) {
    const uint8_t* stage = ring.wait();
    load_unit<K::kStorage>(stage + at.codes, ring.lane, codes);
    const uint64_t inputs = byte_matrix(stage);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Wide<K::kProduct, K::kColumns>::multiply(sums, codes[i], inputs + 2 * i, true);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (before >= 0) ring.release(before);
    before = ring.slot.index;
    ring.slot.next();
  };
  int unit = 0;
#pragma unroll 1
  for (; unit + 2 <= units; unit += 2) {
    add(a[0]);
    add(a[1]);
  }
  if (unit < units) add(a[0]);
  wgmma_wait<0>();
  if (before >= 0) ring.release(before);
}

// The scales of a lane's two rows, for codes as load_unit gives them.
template <Storage kStorage>
__device__ inline float2 row_scales(const PackedMatrix& m, const uint8_t* record, int lane) {
  constexpr float kFactor = kStorage == Storage::kInt4 ? 1.f / 16 : 1.f;
  const float2 scale = scale_pair<false>(m, record, lane / 4);
  return make_float2(scale.x * kFactor, scale.y * kFactor);
}

// Adds the products of units in order, those of each by itself.
template <typename K>
__device__ void fold_units(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                           const Turns& turns, int units, typename K::Raw& part,
                           typename K::Floats& sums) {
  if (units == 0) return;
  Step a[4];
  const uint8_t* stage = ring.wait();
  load_unit<K::kStorage>(stage + at.codes, ring.lane, a);
#pragma unroll 1
  for (int left = units; left > 0; --left) {
    const uint64_t inputs = byte_matrix(stage);
    turns.wait();
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Wide<K::kProduct, K::kColumns>::multiply(part, a[i], inputs + 2 * i, i != 0);
    }
    wgmma_commit();
    turns.pass();
    float2 scale = make_float2(1, 1);
    if constexpr (K::kGrouped) scale = row_scales<K::kStorage>(p.m, stage + at.record, ring.lane);
    wgmma_wait<0>();
    ring.release(ring.slot.index);
    ring.slot.next();
    if (left > 1) {  // the next unit's codes, while this one's sums are added
      stage = ring.wait();
      load_unit<K::kStorage>(stage + at.codes, ring.lane, a);
    }
#pragma unroll
    for (int i = 0; i < K::kColumns / 2; ++i) {
      const auto value = static_cast<float>(part[i]);
      sums[i] = K::kGrouped ? fmaf(i % 4 < 2 ? scale.x : scale.y, value, sums[i]) : sums[i] + value;
    }
  }
}

// Partial sums of a group in memory: of a cluster, which leaves those of one tile at most; of one
// piece of it, if pieces are added one by one.
template <typename K>
__device__ uint4* partials_of(const RoundedProduct& p, int cluster, int piece) {
  const int group = static_cast<int>(blockIdx.x) % kCluster * kGroups + threadIdx.x / 128;
  const int64_t pieces = K::kFolds ? K::kPieces : 1;
  const int64_t index = (cluster * pieces + (K::kFolds ? piece : 0)) * kCluster * kGroups + group;
  return reinterpret_cast<uint4*>(p.share.partials) + index * (K::kColumns / 8) * 128 +
         threadIdx.x % 128;
}
__device__ int32_t* flag_of(const RoundedProduct& p, int cluster) {
  return p.share.flags + (cluster * kCluster + static_cast<int>(blockIdx.x) % kCluster) * kGroups +
         threadIdx.x / 128;
}
__device__ inline void meet_group() { named_sync(3 + static_cast<int>(threadIdx.x) / 128, 128); }

template <typename T, int kCount>
__device__ void leave_partials(uint4* to, const T (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    uint4 words;
    if constexpr (std::is_same_v<T, float>) {
      words = make_uint4(__float_as_uint(sums[4 * i]), __float_as_uint(sums[4 * i + 1]),
                         __float_as_uint(sums[4 * i + 2]), __float_as_uint(sums[4 * i + 3]));
    } else {
      words = make_uint4(static_cast<uint32_t>(sums[4 * i]), static_cast<uint32_t>(sums[4 * i + 1]),
                         static_cast<uint32_t>(sums[4 * i + 2]),
                         static_cast<uint32_t>(sums[4 * i + 3]));
    }
    to[i * 128] = words;
  }
}
template <typename T>
__device__ inline T from_word(uint32_t word) {
  if constexpr (std::is_same_v<T, float>) return __uint_as_float(word);
  return static_cast<T>(word);
}
template <typename T, int kCount>
__device__ void add_partials(const uint4* from, T (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    const uint4 words = load_uncached(from + i * 128);
    sums[4 * i] += from_word<T>(words.x), sums[4 * i + 1] += from_word<T>(words.y);
    sums[4 * i + 2] += from_word<T>(words.z), sums[4 * i + 3] += from_word<T>(words.w);
  }
}

// Says that the group's partial sums are in memory.
__device__ void publish_partials(const RoundedProduct& p) {
  __threadfence();
  meet_group();
  if (threadIdx.x % 128 == 0) raise_flag(flag_of(p, static_cast<int>(blockIdx.x) / kCluster));
}

// Adds what other clusters have of the tile whose pieces up to `last` this one has.
template <typename K, typename T, int kCount>
__device__ void collect_partials(const RoundedProduct& p, const Item& item, T (&sums)[kCount]) {
  const int end = (item.tile + 1) * K::kPieces;
  int cluster = static_cast<int>(blockIdx.x) / kCluster + 1;
#pragma unroll 1
  for (int piece = item.tile * K::kPieces + item.last; piece < end; ++cluster) {
    const int next = min(end, Walk<K::kPieces>::begin(p.plan, cluster + 1));
    if (next == piece) continue;
    int32_t* flag = flag_of(p, cluster);
    if (threadIdx.x % 128 == 0) await_flag(flag);
    meet_group();
    if constexpr (K::kFolds) {
#pragma unroll 1
      for (; piece < next; ++piece) {
        add_partials(partials_of<K>(p, cluster, piece % K::kPieces), sums);
      }
    } else {
      add_partials(partials_of<K>(p, cluster, 0), sums);
      piece = next;
    }
    meet_group();
    if (threadIdx.x % 128 == 0) *flag = 0;
  }
}

// What a tile's sums are multiplied by, and the bias: asked for before the products, which take
// longer than memory. Each thread of a group has two rows, and some tokens for all of it.
template <typename K>
struct TileScales {
  static constexpr int kHeld = (K::kColumns + 127) / 128;
  uint2 rows = {};  // as they are stored
  float bias[2] = {};
  float tokens[kHeld], apart[kHeld];

  // tile: the warp's; column: the tile's first.
  __device__ TileScales(const RoundedProduct& p, int tile, int column) {
    const int row = static_cast<int>(threadIdx.x) % 32 / 4, thread = threadIdx.x % 128;
    if constexpr (!K::kGrouped) {
      const int last = (p.m.rows + kTileRows - 1) / kTileRows - 1;
      const uint8_t* record = p.m.scales + static_cast<int64_t>(min(tile, last)) * p.m.record_bytes;
      if (p.m.scale_type == ScaleType::kF32) {
        rows = reinterpret_cast<const uint2*>(record)[row];
      } else {
        rows.x = reinterpret_cast<const uint32_t*>(record)[row];
      }
    }
    for (int i = 0; i < 2; ++i) {
      const int at = tile * kTileRows + row + 8 * i;
      if (p.m.bias != nullptr && at < p.m.rows) bias[i] = p.m.bias[at];
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int at = min(thread + 128 * i, K::kColumns - 1);
      tokens[i] = p.x.scales[column + at];
      apart[i] = p.outlier_units > 0 ? p.x.outlier_scales[column + at] : 1.f;
    }
  }
  __device__ float2 row_pair(const PackedMatrix& m) const {
    if constexpr (K::kGrouped) return make_float2(1, 1);
    return row_scales<K::kStorage>(m, reinterpret_cast<const uint8_t*>(&rows), 0);
  }
};

// Shared memory of a group: the scales of the tile's tokens, and some of the result on its way out.
constexpr int kOutTokens = 32, kOutRow = kGroupRows + 4;
struct GroupMemory {
  float tokens[kRoundedTokens], apart[kRoundedTokens];
  float out[kOutTokens * kOutRow];
};

// Puts the tokens' scales where all of the group find them.
template <typename K>
__device__ void share_scales(const TileScales<K>& scales, GroupMemory& memory) {
#pragma unroll
  for (int i = 0; i < scales.kHeld; ++i) {
    const int at = static_cast<int>(threadIdx.x) % 128 + 128 * i;
    if (at < K::kColumns) memory.tokens[at] = scales.tokens[i], memory.apart[at] = scales.apart[i];
  }
  meet_group();
}

template <typename K, typename T>
__device__ void scale_sums(const float2& rows, const float* scales,
                           const T (&sums)[K::kColumns / 2], typename K::Floats& scaled) {
#pragma unroll
  for (int e = 0; e < K::kColumns / 8; ++e) {
    const float2 tokens = *reinterpret_cast<const float2*>(scales + 8 * e);
    // Never fused with the addition of the bias: all kernels must round alike.
    const auto scale = [&](int i, float row, float token) {
      scaled[4 * e + i] = __fmul_rn(__fmul_rn(static_cast<float>(sums[4 * e + i]), row), token);
    };
    scale(0, rows.x, tokens.x);
    scale(1, rows.x, tokens.y);
    scale(2, rows.y, tokens.x);
    scale(3, rows.y, tokens.y);
  }
}

template <typename K>
__device__ void add_outliers(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                             typename K::Floats& sums) {
#pragma unroll 1
  for (int unit = 0; unit < p.outlier_units; ++unit) {
    Step a[4];
    const uint8_t* stage = ring.wait();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 w =
          *reinterpret_cast<const uint4*>(stage + at.outlier_codes + i * 512 + ring.lane * 16);
      a[i][0] = w.x, a[i][1] = w.z, a[i][2] = w.y, a[i][3] = w.w;
    }
    const uint64_t inputs = byte_matrix(stage);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Wide<Product::kF16, K::kColumns>::multiply(sums, a[i], inputs + 2 * i, true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    ring.release(ring.slot.index);
    ring.slot.next();
  }
}

// Writes four rows of a token.
__device__ inline void write_rows(const RoundedProduct& p, int row, int token, const float4& v) {
  if (token >= p.tokens) return;
  float* to = p.y + token * p.y_stride + row;
  if (row + 4 <= p.m.rows && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    *reinterpret_cast<float4*>(to) = v;
    return;
  }
  const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (row + i < p.m.rows) to[i] = values[i];
  }
}

// Writes the group's 64 rows, through shared memory so that neighbouring rows of a token leave
// together. row: of the group; column: of the tile.
template <typename K>
__device__ void write_sums(const RoundedProduct& p, int row, int column, int lane,
                           const float (&bias)[2], const typename K::Floats& sums, float* out) {
  constexpr int kTokens = K::kColumns < kOutTokens ? K::kColumns : kOutTokens;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int in_row = thread / 32 * kTileRows + lane / 4, in_token = lane % 4 * 2;
  const int out_row = thread % 16 * 4, out_token = thread / 16;
#pragma unroll
  for (int first = 0; first < K::kColumns; first += kTokens) {
    if (first > 0) meet_group();  // those before have been read
#pragma unroll
    for (int e = 0; e < kTokens / 8; ++e) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = (8 * e + in_token + i % 2) * kOutRow + in_row + i / 2 * 8;
        out[at] = __fadd_rn(sums[first / 2 + 4 * e + i], bias[i / 2]);
      }
    }
    meet_group();
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i) {
      const int token = out_token + 8 * i;
      const float4 v = *reinterpret_cast<const float4*>(out + token * kOutRow + out_row);
      write_rows(p, row + out_row, column + first + token, v);
    }
  }
}

// Scales, adds the outliers and writes: what is left to do with the sums of a tile. scaled: may be
// the sums.
template <typename K, typename T>
__device__ void finish(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                       const TileScales<K>& scales, int tile, int column, GroupMemory& memory,
                       const T (&sums)[K::kColumns / 2], typename K::Floats& scaled) {
  share_scales<K>(scales, memory);
  const int mine = ring.lane % 4 * 2;
  scale_sums<K>(scales.row_pair(p.m), memory.tokens + mine, sums, scaled);
  if (p.outlier_units > 0) {
    add_outliers<K>(p, ring, at, scaled);
#pragma unroll
    for (int i = 0; i < K::kColumns / 2; ++i) {
      scaled[i] = __fmul_rn(scaled[i], memory.apart[mine + i / 4 * 8 + i % 2]);
    }
  }
  write_sums<K>(p, tile / 4 * kGroupRows, column, ring.lane, scales.bias, scaled, memory.out);
}

template <typename K>
__device__ void take_integers(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                              const Item& item, int tile, int column, GroupMemory& memory) {
  const TileScales<K> scales(p, tile, column);
  typename K::Raw sums;
#pragma unroll
  for (auto& value : sums) value = 0;
  add_units<K>(ring, at, first_unit<K>(p.m, item.last) - first_unit<K>(p.m, item.first), sums);
  if (!item.finishes()) {
    leave_partials(partials_of<K>(p, static_cast<int>(blockIdx.x) / kCluster, 0), sums);
    publish_partials(p);
    return;
  }
  if (item.last < K::kPieces) collect_partials<K>(p, item, sums);
  typename K::Floats scaled;
  finish<K>(p, ring, at, scales, tile, column, memory, sums, scaled);
}

template <typename K>
__device__ void take_floats(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                            const Turns& turns, const Item& item, int tile, int column,
                            GroupMemory& memory) {
  const TileScales<K> scales(p, tile, column);
  typename K::Raw part;
  typename K::Floats sums, total;
#pragma unroll
  for (float& value : total) value = 0;
#pragma unroll 1
  for (int piece = item.first; piece < item.last; ++piece) {
#pragma unroll
    for (float& value : sums) value = 0;
    fold_units<K>(p, ring, at, turns, first_unit<K>(p.m, piece + 1) - first_unit<K>(p.m, piece),
                  part, sums);
    if (item.finishes()) {
#pragma unroll
      for (int i = 0; i < K::kColumns / 2; ++i) total[i] += sums[i];
    } else {
      leave_partials(partials_of<K>(p, static_cast<int>(blockIdx.x) / kCluster, piece), sums);
    }
  }
  if (!item.finishes()) {
    publish_partials(p);
    return;
  }
  if (item.last < K::kPieces) collect_partials<K>(p, item, total);
  finish<K>(p, ring, at, scales, tile, column, memory, total, sums);
}

template <typename K>
__device__ void consume(const RoundedProduct& p, const uint8_t* memory, uint64_t* full,
                        uint64_t* empty, GroupMemory* group_memory) {
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const int place = static_cast<int>(threadIdx.x) / 32;  // the warp's tile in the block
  const WarpPlace at = {p.stage.codes + place * p.stage.code_bytes,
                        p.stage.codes + place * kOutlierTileBytes,
                        p.stage.records + place * p.stage.record_bytes};
  constexpr bool kTurns = K::kFolds && K::kInteger && K::kColumns >= 128;
  const Turns turns = kTurns ? Turns{1 + group, 2 - group} : Turns{};
  if (kTurns && group == 1) turns.pass();
  Ring ring{memory, full, empty, p.stage.bytes, lane, {p.stages}};
  grid_wait();
  Walk<K::kPieces> walk(p.plan);
  for (Item item; walk.next(item);) {
    int tile, column;
    walk.place(item, K::kColumns, tile, column);
    tile += place;
    if constexpr (K::kFolds) {
      take_floats<K>(p, ring, at, turns, item, tile, column, group_memory[group]);
    } else {
      take_integers<K>(p, ring, at, item, tile, column, group_memory[group]);
    }
  }
  if (kTurns && group == 0) turns.wait();  // the last pass
}

template <typename K>
__global__ void __launch_bounds__(kThreads, 1)
    linear_rounded(const __grid_constant__ RoundedProduct p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t memory[];
  grid_start();
  auto* groups = reinterpret_cast<GroupMemory*>(memory + p.stages * p.stage.bytes);
  auto* full = reinterpret_cast<uint64_t*>(groups + kGroups);
  uint64_t* empty = full + p.stages;
  if (threadIdx.x == 0) {
    prefetch_map(&p.maps.codes);
    for (int i = 0; i < p.stages; ++i) {
      barrier_init(full + i, 2);  // who copies weights, and who copies inputs
      barrier_init(empty + i, kGroups * 4 * kCluster);
    }
    barriers_ready();
  }
  __syncthreads();
  cluster_arrive();
  if (threadIdx.x / 128 == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
    // Weights come to this block alone, which need not wait for the other.
    if (warp == 0 && elected()) produce_weights<K>(p, memory, full, empty);
    __syncwarp();
    cluster_wait();
    if (warp == 1) {
      grid_wait();
      if (elected()) produce_inputs<K>(p, memory, full, empty);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    cluster_wait();
    consume<K>(p, memory, full, empty, groups);
  }
  __syncwarp();
  cluster_arrive();  // none may end while the other may still write to it
  cluster_wait();
#endif
}

template <typename K>
void launch_kind(RoundedProduct p, cudaStream_t stream) {
  constexpr int kFixed = kGroups * static_cast<int>(sizeof(GroupMemory)) + 256;  // and barriers
  p.stages = std::min(12, (kMostShared - kFixed) / p.stage.bytes);
  launch_cluster(linear_rounded<K>, dim3(static_cast<unsigned>(p.plan.clusters * kCluster)),
                 kThreads, static_cast<size_t>(kFixed + p.stages * p.stage.bytes), kCluster, stream,
                 p);
}

template <Storage kStorage, bool kGrouped>
void launch_columns(const RoundedProduct& p, cudaStream_t stream) {
  switch (p.plan.columns) {
    case 16:
      return launch_kind<Kind<kStorage, kGrouped, 16>>(p, stream);
    case 64:
      return launch_kind<Kind<kStorage, kGrouped, 64>>(p, stream);
    case 256:
      if constexpr (!kGrouped && is_integer(kStorage)) {
        return launch_kind<Kind<kStorage, kGrouped, 256>>(p, stream);
      }
      break;
    default:
      break;
  }
  launch_kind<Kind<kStorage, kGrouped, 128>>(p, stream);
}

template <Storage kStorage>
void launch_storage(const RoundedProduct& p, bool grouped, cudaStream_t stream) {
  if (grouped) {
    launch_columns<kStorage, true>(p, stream);
  } else {
    launch_columns<kStorage, false>(p, stream);
  }
}

bool is_grouped(const PackedMatrix& m) { return m.records > 1; }
bool folds(const PackedMatrix& m) { return is_grouped(m) || !is_integer(m.storage); }
int parts_of(int count, int size) { return (count + size - 1) / size; }

// A plan whose clusters have `most` pieces of split tiles (all of a tile: none is split). False if
// there are not so many clusters.
bool make_plan(const PackedMatrix& m, int tokens, int columns, int most, int pairs,
               RoundedPlan& plan) {
  const int pieces = pieces_of(folds(m));
  plan.columns = columns;
  plan.row_pairs = parts_of(m.rows, kCluster * kBlockRows);
  plan.column_tiles = parts_of(tokens, columns);
  plan.clusters = std::min(pairs, plan.tiles() * pieces);
  plan.split_tiles = plan.tiles() % plan.clusters;
  plan.split_clusters = parts_of(plan.split_tiles * pieces, most);
  if (plan.split_clusters > plan.clusters) return false;
  if (plan.tiles() < plan.clusters) plan.clusters = std::max(1, plan.split_clusters);
  return true;
}

// What a product takes on an H200, in microseconds, as far as plans differ.
double time_of(const PackedMatrix& m, const RoundedPlan& plan, int most) {
  struct Cost {
    double unit, end, share;  // 128 columns of a tile; its end; adding what another left
  };
  constexpr Cost kIntegers[] = {{0.27, 1, 0.7}, {0.33, 1.3, 1.8}, {0.40, 3, 3}, {0.67, 4, 5}};
  constexpr Cost kFloats[] = {{0.28, 1, 0.7}, {0.36, 1.3, 1.8}, {0.47, 3, 3.4}, {}};
  const int size = plan.columns == 16 ? 0 : plan.columns == 64 ? 1 : plan.columns == 128 ? 2 : 3;
  const Cost& cost = (folds(m) ? kFloats : kIntegers)[size];
  const int pieces = pieces_of(folds(m)), whole = (plan.tiles() - plan.split_tiles) / plan.clusters;
  const int split = plan.split_tiles > 0 ? most : 0;
  const int others = split > 0 ? parts_of(pieces, split) - 1 : 0;
  const double busy = (whole + static_cast<double>(split) / pieces) * m.units * cost.unit;
  const double bytes = static_cast<double>(m.rows) * m.units * lane_words(m.storage) * 32;
  return std::max(busy, bytes / 4.0e6) + (whole + (split > 0)) * cost.end +
         others * cost.share * (folds(m) ? split : 1);
}

}  // namespace

RoundedPlan plan_rounded(const PackedMatrix& m, int tokens, int processors) {
  const int pairs = std::max(1, processors / kCluster);
  RoundedPlan best;
  double least = std::numeric_limits<double>::infinity();
  for (const int columns : {16, 64, 128, 256}) {
    if (columns == 256 && folds(m)) continue;
    for (int most = 1; most <= pieces_of(folds(m)); most *= 2) {
      RoundedPlan plan;
      if (!make_plan(m, tokens, columns, most, pairs, plan)) continue;
      const double time = time_of(m, plan, most);
      if (time < least) least = time, best = plan;
    }
  }
  return best;
}

int64_t rounded_partials(const RoundedPlan& plan, const PackedMatrix& m) {
  if (plan.split_clusters == plan.split_tiles) return 0;
  return int64_t{plan.split_clusters} * (folds(m) ? pieces_of(true) : 1) * kCluster * kBlockRows *
         plan.columns;
}

bool rounds_fast(const PackedMatrix& m) {
  const bool eight_bits = is_integer(m.storage) || m.storage == Storage::kE4M3;
  return eight_bits && m.fold == kUnitSteps && m.zero_type == ZeroType::kCenter &&
         (!is_integer(m.storage) || m.center == (m.storage == Storage::kInt4 ? 8 : 128)) &&
         m.cols < kMostRoundedCols;
}

void launch_linear_rounded(const PackedMatrix& matrix, const RoundedMaps& maps, int outliers,
                           const RoundedInput& input, int tokens, const RoundedPlan& plan,
                           const RoundedShare& share, float* y, int64_t y_stride,
                           cudaStream_t stream) {
  const bool grouped = is_grouped(matrix);
  const RoundedProduct p = {maps,    matrix,
                            input,   plan,
                            share,   StageLayout(matrix, grouped, plan.columns, outliers > 0),
                            tokens,  parts_of(outliers, kOutlierCols),
                            0,       y,
                            y_stride};
  switch (matrix.storage) {
    case Storage::kInt4:
      return launch_storage<Storage::kInt4>(p, grouped, stream);
    case Storage::kInt8:
      return launch_storage<Storage::kInt8>(p, grouped, stream);
    default:
      return launch_storage<Storage::kE4M3>(p, grouped, stream);
  }
}

}  // namespace lowbit::cuda
