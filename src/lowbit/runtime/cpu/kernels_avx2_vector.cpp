// y = x * W^T in fp32 for one token: weights go from memory through registers into the sums. The
// same products in the same order as kernels_avx2_linear.cpp. Two to four tiles at a time hide the
// latency of their chains of FMAs.
#include "lowbit/runtime/cpu/kernels_avx2.h"
#include "lowbit/runtime/cpu/packed_avx2.h"
#include "lowbit/runtime/cpu/simd_avx2.h"

namespace lowbit::cpu {
namespace {

// One block of N neighbouring tiles. x: [32]
template <Storage kStorage, bool kSplit, int N>
inline void add_block(const PackedMatrix& w, int64_t tile, int64_t block, const float* x,
                      __m256 (&sums)[N]) {
  constexpr int kParts = kSplit ? 2 : 1;
  constexpr int64_t kBytes = block_bytes(kStorage);
  for (int part = 0; part < kParts; ++part) {
    const int64_t group = kSplit ? block * 2 + part : block / w.group_blocks;
    const auto product = [&](const Group(&groups)[N]) {
      for (int quad = part * 8 / kParts; quad < (part + 1) * 8 / kParts; ++quad) {
        for (int n = 0; n < N; ++n) {
          const uint8_t* codes = w.codes + ((tile + n) * w.blocks + block) * kBytes;
          __m256 weights[4];
          load_weights<kStorage>(w, groups[n], codes, quad, weights);
          for (int i = 0; i < 4; ++i) {
            sums[n] = _mm256_fmadd_ps(weights[i], _mm256_broadcast_ss(x + quad * 4 + i), sums[n]);
          }
        }
      }
    };
    if constexpr (N == 2) {
      product({Group(w, tile * w.groups + group), Group(w, (tile + 1) * w.groups + group)});
    } else {
      product({Group(w, tile * w.groups + group)});
    }
  }
}

template <Storage kStorage, bool kSplit, int N>
void quantized_tiles(const PackedMatrix& w, const float* x, int64_t tile, float* y) {
  __m256 sums[N];
  for (int n = 0; n < N; ++n) sums[n] = _mm256_setzero_ps();
  const int64_t whole = w.cols / kBlockCols;
  for (int64_t block = 0; block < whole; ++block) {
    add_block<kStorage, kSplit, N>(w, tile, block, x + block * kBlockCols, sums);
  }
  if (whole < w.blocks) {
    float rest[kBlockCols] = {};
    for (int64_t k = whole * kBlockCols; k < w.cols; ++k) rest[k - whole * kBlockCols] = x[k];
    add_block<kStorage, kSplit, N>(w, tile, whole, rest, sums);
  }
  for (int n = 0; n < N; ++n) store_rows(w, tile + n, sums[n], y);
}

template <Storage kStorage, int N>
void dense_tiles(const PackedMatrix& w, const float* x, int64_t tile, float* y) {
  __m256 sums[N];
  for (int n = 0; n < N; ++n) sums[n] = _mm256_setzero_ps();
  for (int64_t k = 0; k < w.cols; ++k) {
    const __m256 value = _mm256_broadcast_ss(x + k);
    for (int n = 0; n < N; ++n) {
      const __m256 weights = load_dense(kStorage, w.codes, (tile + n) * w.cols + k);
      sums[n] = _mm256_fmadd_ps(weights, value, sums[n]);
    }
  }
  for (int n = 0; n < N; ++n) store_rows(w, tile + n, sums[n], y);
}

template <Storage kStorage, bool kSplit>
void split_product(const PackedMatrix& w, const float* x, Range tiles, float* y) {
  int64_t tile = tiles.first;
  for (; tile + 2 <= tiles.last; tile += 2) quantized_tiles<kStorage, kSplit, 2>(w, x, tile, y);
  if (tile < tiles.last) quantized_tiles<kStorage, kSplit, 1>(w, x, tile, y);
}

template <Storage kStorage>
void quantized_product(const PackedMatrix& w, const float* x, Range tiles, float* y) {
  (w.split_blocks ? split_product<kStorage, true> : split_product<kStorage, false>)(w, x, tiles, y);
}

template <Storage kStorage>
void dense_product(const PackedMatrix& w, const float* x, Range tiles, float* y) {
  int64_t tile = tiles.first;
  for (; tile + 4 <= tiles.last; tile += 4) dense_tiles<kStorage, 4>(w, x, tile, y);
  for (; tile < tiles.last; ++tile) dense_tiles<kStorage, 1>(w, x, tile, y);
}

using Product = void (*)(const PackedMatrix&, const float*, Range, float*);

Product product_for(const PackedMatrix& w) {
  switch (w.storage) {
    case Storage::kF32:
      return dense_product<Storage::kF32>;
    case Storage::kF16:
      return dense_product<Storage::kF16>;
    case Storage::kBF16:
      return dense_product<Storage::kBF16>;
    case Storage::kE4M3:
      return quantized_product<Storage::kE4M3>;
    case Storage::kU2:
      return quantized_product<Storage::kU2>;
    case Storage::kU3:
      return quantized_product<Storage::kU3>;
    case Storage::kU4:
      return quantized_product<Storage::kU4>;
    case Storage::kU5:
      return quantized_product<Storage::kU5>;
    case Storage::kU6:
      return quantized_product<Storage::kU6>;
    case Storage::kS8:
      return quantized_product<Storage::kS8>;
    case Storage::kTable4:
      return quantized_product<Storage::kTable4>;
  }
  return nullptr;
}

}  // namespace

namespace avx2 {

void vector_product(const PackedMatrix& w, const float* x, Range tiles, float* y) {
  product_for(w)(w, x, tiles, y);
}

}  // namespace avx2
}  // namespace lowbit::cpu
