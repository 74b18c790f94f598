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
  static constexpr Product kProduct = kInteger ? Product::kInt8 : Product::kE4M3;
  using Sum = std::conditional_t<kInteger, int32_t, float>;
  using Raw = Sum[kColumns / 2];      // as wgmma leaves them
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

__device__ inline int first_unit(const PackedMatrix& m, int piece) {
  return piece * m.units / kPieces;
}

// Pieces [first, last) of a tile that a cluster takes. Who has the first piece finishes the tile.
struct Item {
  int tile = 0, first = 0, last = 0;
  __device__ bool finishes() const { return first == 0; }
};

// The items of a cluster: a run of the split tiles' pieces, then whole tiles.
class Walk {
 public:
  __device__ explicit Walk(const RoundedPlan& plan) : plan_(plan) {
    const int cluster = static_cast<int>(blockIdx.x) / kCluster;
    piece_ = begin(plan, cluster);
    end_ = begin(plan, cluster + 1);
    whole_ = plan.split_tiles + cluster;
  }
  __device__ bool next(Item& item) {
    if (piece_ < end_) {
      item.tile = piece_ / kPieces;
      item.first = piece_ % kPieces;
      item.last = min(kPieces, item.first + end_ - piece_);
      piece_ += item.last - item.first;
      return true;
    }
    item = {whole_, 0, kPieces};
    whole_ += plan_.clusters;
    return item.tile < plan_.tiles();
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
  Walk walk(p.plan);
  const int unit_words = p.stage.code_bytes / 8, record_words = p.stage.record_bytes / 8;
  for (Item item; walk.next(item);) {
    int tile, column;
    walk.place(item, K::kColumns, tile, column);
    const int end = first_unit(p.m, item.last);
#pragma unroll 1
    for (int unit = first_unit(p.m, item.first); unit < end; ++unit, slot.next()) {
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
  Walk walk(p.plan);
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
    const int end = first_unit(p.m, item.last);
#pragma unroll 1
    for (int unit = first_unit(p.m, item.first); unit < end; ++unit) {
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
#pragma unroll 1
  for (int unit = 0; unit < units; ++unit) {
    Step a[4];
    const uint8_t* stage = ring.wait();
    load_unit<K::kStorage>(stage + at.codes, ring.lane, a);
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
  const int64_t pieces = K::kFolds ? kPieces : 1;
  const int64_t index = (cluster * pieces + (K::kFolds ? piece : 0)) * kCluster * kGroups + group;
  return reinterpret_cast<uint4*>(p.share.partials) + index * (K::kColumns / 8) * 128 +
         threadIdx.x % 128;
}
__device__ int32_t* flag_of(const RoundedProduct& p, int cluster) {
  return p.share.flags +
         (cluster * kCluster + static_cast<int>(blockIdx.x) % kCluster) * kGroups +
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
  const int end = (item.tile + 1) * kPieces;
  int cluster = static_cast<int>(blockIdx.x) / kCluster + 1;
#pragma unroll 1
  for (int piece = item.tile * kPieces + item.last; piece < end; ++cluster) {
    const int next = min(end, Walk::begin(p.plan, cluster + 1));
    if (next == piece) continue;
    int32_t* flag = flag_of(p, cluster);
    if (threadIdx.x % 128 == 0) await_flag(flag);
    meet_group();
    if constexpr (K::kFolds) {
#pragma unroll 1
      for (; piece < next; ++piece) {
        add_partials(partials_of<K>(p, cluster, piece % kPieces), sums);
      }
    } else {
      add_partials(partials_of<K>(p, cluster, 0), sums);
      piece = next;
    }
    meet_group();
    if (threadIdx.x % 128 == 0) *flag = 0;
  }
}

// Scales the sums of a tile: `tile` and `column` are the warp's and the lane's first.
template <typename K, typename T>
__device__ void scale_sums(const RoundedProduct& p, int tile, int column, int lane,
                           const T (&sums)[K::kColumns / 2], typename K::Floats& scaled) {
  float2 rows = make_float2(1, 1);
  if constexpr (!K::kGrouped) {
    const int last = (p.m.rows + kTileRows - 1) / kTileRows - 1;
    const int64_t record = static_cast<int64_t>(min(tile, last)) * p.m.record_bytes;
    rows = row_scales<K::kStorage>(p.m, p.m.scales + record, lane);
  }
#pragma unroll
  for (int e = 0; e < K::kColumns / 8; ++e) {
    const float2 tokens = *reinterpret_cast<const float2*>(p.x.scales + column + 8 * e);
    scaled[4 * e] = static_cast<float>(sums[4 * e]) * rows.x * tokens.x;
    scaled[4 * e + 1] = static_cast<float>(sums[4 * e + 1]) * rows.x * tokens.y;
    scaled[4 * e + 2] = static_cast<float>(sums[4 * e + 2]) * rows.y * tokens.x;
    scaled[4 * e + 3] = static_cast<float>(sums[4 * e + 3]) * rows.y * tokens.y;
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

// Writes a lane's two rows of a tile.
template <typename K>
__device__ void write_sums(const RoundedProduct& p, int row, int column,
                           const typename K::Floats& sums) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    if (at >= p.m.rows) return;
    const float bias = p.m.bias == nullptr ? 0.f : p.m.bias[at];
    float* to = p.y + column * p.y_stride + at;
#pragma unroll
    for (int e = 0; e < K::kColumns / 8; ++e) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = column + 8 * e + i;
        if (token >= p.tokens) continue;
        const float scale = p.outlier_units > 0 ? p.x.outlier_scales[token] : 1.f;
        to[(8 * e + i) * p.y_stride] = fmaf(sums[4 * e + 2 * half + i], scale, bias);
      }
    }
  }
}

template <typename K>
__device__ void finish(const RoundedProduct& p, Ring& ring, const WarpPlace& at, int tile,
                       int column, typename K::Floats& scaled) {
  if (p.outlier_units > 0) add_outliers<K>(p, ring, at, scaled);
  write_sums<K>(p, tile * kTileRows + ring.lane / 4, column, scaled);
}

template <typename K>
__device__ void take_integers(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                              const Item& item, int tile, int column) {
  typename K::Raw sums;
#pragma unroll
  for (auto& value : sums) value = 0;
  add_units<K>(ring, at, first_unit(p.m, item.last) - first_unit(p.m, item.first), sums);
  if (!item.finishes()) {
    leave_partials(partials_of<K>(p, static_cast<int>(blockIdx.x) / kCluster, 0), sums);
    publish_partials(p);
    return;
  }
  if (item.last < kPieces) collect_partials<K>(p, item, sums);
  typename K::Floats scaled;
  scale_sums<K>(p, tile, column, ring.lane, sums, scaled);
  finish<K>(p, ring, at, tile, column, scaled);
}

template <typename K>
__device__ void take_floats(const RoundedProduct& p, Ring& ring, const WarpPlace& at,
                            const Turns& turns, const Item& item, int tile, int column) {
  typename K::Raw part;
  typename K::Floats sums, total;
#pragma unroll
  for (float& value : total) value = 0;
#pragma unroll 1
  for (int piece = item.first; piece < item.last; ++piece) {
#pragma unroll
    for (float& value : sums) value = 0;
    fold_units<K>(p, ring, at, turns, first_unit(p.m, piece + 1) - first_unit(p.m, piece), part,
                  sums);
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
  if (item.last < kPieces) collect_partials<K>(p, item, total);
  scale_sums<K>(p, tile, column, ring.lane, total, sums);
  finish<K>(p, ring, at, tile, column, sums);
}

template <typename K>
__device__ void consume(const RoundedProduct& p, const uint8_t* memory, uint64_t* full,
                        uint64_t* empty) {
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const int place = static_cast<int>(threadIdx.x) / 32;  // the warp's tile in the block
  const WarpPlace at = {p.stage.codes + place * p.stage.code_bytes,
                        p.stage.codes + place * kOutlierTileBytes,
                        p.stage.records + place * p.stage.record_bytes};
  constexpr bool kTurns = K::kFolds && K::kColumns >= 128;
  const Turns turns = kTurns ? Turns{1 + group, 2 - group} : Turns{};
  if (kTurns && group == 1) turns.pass();
  Ring ring{memory, full, empty, p.stage.bytes, lane, {p.stages}};
  grid_wait();
  Walk walk(p.plan);
  for (Item item; walk.next(item);) {
    int tile, column;
    walk.place(item, K::kColumns, tile, column);
    tile += place;
    column += lane % 4 * 2;
    if constexpr (K::kFolds) {
      take_floats<K>(p, ring, at, turns, item, tile, column);
    } else {
      take_integers<K>(p, ring, at, item, tile, column);
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
  auto* full = reinterpret_cast<uint64_t*>(memory + p.stages * p.stage.bytes);
  uint64_t* empty = full + p.stages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.stages; ++i) {
      barrier_init(full + i, 2);  // who copies weights, and who copies inputs
      barrier_init(empty + i, kGroups * 4 * kCluster);
    }
    barriers_ready();
  }
  __syncthreads();
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x / 128 == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
    if (warp == 0) {
      if (elected()) produce_weights<K>(p, memory, full, empty);
    } else if (warp == 1) {
      grid_wait();
      if (elected()) produce_inputs<K>(p, memory, full, empty);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<K>(p, memory, full, empty);
  }
  cluster_arrive();  // none may end while the other may still write to it
  cluster_wait();
#endif
}

template <typename K>
void launch_kind(RoundedProduct p, cudaStream_t stream) {
  constexpr int kFixed = 256;  // barriers
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

}  // namespace

RoundedPlan plan_rounded(const PackedMatrix& m, int tokens, int processors) {
  RoundedPlan plan;
  plan.columns = tokens <= 16 ? 16 : tokens <= 64 ? 64 : 128;
  const int doubled = 2 * plan.columns;
  if (tokens > 128 && !folds(m) && parts_of(tokens, 128) % 2 == 0) plan.columns = doubled;
  plan.row_pairs = parts_of(m.rows, kCluster * kBlockRows);
  plan.column_tiles = parts_of(tokens, plan.columns);
  const int most = std::max(1, processors / kCluster);
  plan.clusters = std::min(most, plan.tiles() * kPieces);
  // Tiles that fill the last round only in part are split if that saves a quarter of it.
  plan.split_tiles = plan.tiles() % plan.clusters;
  const int pieces = parts_of(plan.split_tiles * kPieces, plan.clusters);
  const bool split = pieces <= kPieces * 3 / 4;
  plan.split_clusters = split && pieces > 0 ? parts_of(plan.split_tiles * kPieces, pieces)
                                            : plan.split_tiles;
  if (plan.tiles() < plan.clusters) plan.clusters = std::max(1, plan.split_clusters);
  return plan;
}

int64_t rounded_partials(const RoundedPlan& plan, const PackedMatrix& m) {
  if (plan.split_clusters == plan.split_tiles) return 0;
  return int64_t{plan.split_clusters} * (folds(m) ? kPieces : 1) * kCluster * kBlockRows *
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
  const RoundedProduct p = {maps,
                            matrix,
                            input,
                            plan,
                            share,
                            StageLayout(matrix, grouped, plan.columns, outliers > 0),
                            tokens,
                            parts_of(outliers, kOutlierCols),
                            0,
                            y,
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
