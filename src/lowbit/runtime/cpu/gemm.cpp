// Blocked as by Goto and van de Geijn (ACM TOMS 34(3), 2008): a slice of kDepth rows of b is packed
// once for all threads, a block of a once per task, and register tiles walk over both.
#include "lowbit/runtime/cpu/gemm.h"

#include <algorithm>

#include "lowbit/runtime/cpu/isa.h"

namespace lowbit::cpu {

namespace {

constexpr int64_t kDepth = 256;         // k of one slice: a panel of b stays in the first cache
constexpr int64_t kBlockRows = 112;     // of a per task, rounded to tiles: stays in the second
constexpr int64_t kBlockColumns = 768;  // of b per task
constexpr int64_t kAlignment = 16;      // floats

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

float* aligned(std::vector<float>& buffer, int64_t size) {
  const size_t needed = static_cast<size_t>(size + kAlignment);
  if (buffer.size() < needed) buffer.resize(needed);
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  constexpr uintptr_t kBytes = kAlignment * sizeof(float);
  return reinterpret_cast<float*>((address + kBytes - 1) / kBytes * kBytes);
}

// out[j][width] = element [first + i][j] of the view, i < width; zeros beyond `count`.
void pack_panel(MatrixView view, int64_t first, int64_t count, int64_t width, int64_t depth,
                float* out) {
  const float* data = view.data + first * view.row_stride;
  if (view.row_stride == 1 && count == width) {
    for (int64_t j = 0; j < depth; ++j) {
      std::copy_n(data + j * view.column_stride, width, out + j * width);
    }
    return;
  }
  // In strips, so that both sides stay in the first cache.
  constexpr int64_t kStrip = 16;
  for (int64_t start = 0; start < depth; start += kStrip) {
    const int64_t end = std::min(depth, start + kStrip);
    for (int64_t i = 0; i < width; ++i) {
      const float* from = data + i * view.row_stride;
      for (int64_t j = start; j < end; ++j) {
        out[j * width + i] = i < count ? from[j * view.column_stride] : 0.f;
      }
    }
  }
}

}  // namespace

void plain_gemm_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride,
                     bool accumulate) {
  constexpr int64_t kRows = 4, kColumns = 8;
  float sums[kRows][kColumns] = {};
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < kColumns; ++j) sums[i][j] += a[p * kRows + i] * b[p * kColumns + j];
    }
  }
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) {
      float& out = c[i * c_stride + j];
      out = accumulate ? out + sums[i][j] : sums[i][j];
    }
  }
}

Gemm::Gemm(ThreadPool* pool, const std::string& isa)
    : pool_(pool),
      kernel_(select_gemm(isa)),
      packed_a_(static_cast<size_t>(pool == nullptr ? 1 : pool->size())) {}

void Gemm::run(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (pool_ != nullptr && count > 1) {
    pool_->parallel_for(count, body);
  } else {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
  }
}

void Gemm::pack_b(MatrixView b, int64_t k, int64_t n) {
  const int64_t width = kernel_.columns, panels = ceil_div(n, width);
  float* out = aligned(packed_b_, panels * width * k);
  const MatrixView columns = {b.data, b.column_stride, b.row_stride};
  constexpr int64_t kPanelsPerTask = 4;
  run(ceil_div(panels, kPanelsPerTask), [&](int64_t task, int) {
    const int64_t end = std::min(panels, (task + 1) * kPanelsPerTask);
    for (int64_t panel = task * kPanelsPerTask; panel < end; ++panel) {
      const int64_t first = panel * width;
      pack_panel(columns, first, std::min(width, n - first), width, k, out + first * k);
    }
  });
}

void Gemm::multiply_block(MatrixView a, int64_t rows, int64_t k, int64_t first_panel,
                          int64_t panels, int64_t n, float* c, int64_t c_stride, bool accumulate,
                          int thread) {
  const int64_t height = kernel_.rows, width = kernel_.columns;
  const int64_t tiles = ceil_div(rows, height);
  const int64_t edge_size = height * width;
  float* packed =
      aligned(packed_a_[static_cast<size_t>(thread)], tiles * height * k + edge_size + kAlignment);
  float* edge = packed + ceil_div(tiles * height * k, kAlignment) * kAlignment;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * height;
    pack_panel(a, first, std::min(height, rows - first), height, k, packed + first * k);
  }
  const float* packed_b = aligned(packed_b_, 0);
  for (int64_t panel = first_panel; panel < first_panel + panels; ++panel) {
    const float* b = packed_b + panel * width * k;
    const int64_t columns = std::min(width, n - panel * width);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * height, count = std::min(height, rows - first);
      float* out = c + first * c_stride + panel * width;
      if (count == height && columns == width) {
        kernel_.tile(k, packed + first * k, b, out, c_stride, accumulate);
        continue;
      }
      kernel_.tile(k, packed + first * k, b, edge, width, false);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          float& to = out[i * c_stride + j];
          to = accumulate ? to + edge[i * width + j] : edge[i * width + j];
        }
      }
    }
  }
}

void Gemm::multiply(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                    int64_t c_stride, bool accumulate) {
  if (k == 0 && !accumulate) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * c_stride, n, 0.f);
  }
  const int64_t panels = ceil_div(n, kernel_.columns);
  const int64_t block_rows = ceil_div(kBlockRows, kernel_.rows) * kernel_.rows;
  const int64_t block_panels = kBlockColumns / kernel_.columns;
  const int64_t row_blocks = ceil_div(m, block_rows);
  const int64_t column_blocks = ceil_div(panels, block_panels);
  for (int64_t start = 0; start < k; start += kDepth) {
    const int64_t depth = std::min(kDepth, k - start);
    pack_b({b.data + start * b.row_stride, b.row_stride, b.column_stride}, depth, n);
    run(row_blocks * column_blocks, [&](int64_t task, int thread) {
      const int64_t row = task / column_blocks * block_rows;
      const int64_t panel = task % column_blocks * block_panels;
      const float* block = a.data + row * a.row_stride + start * a.column_stride;
      multiply_block({block, a.row_stride, a.column_stride}, std::min(block_rows, m - row), depth,
                     panel, std::min(block_panels, panels - panel), n, c + row * c_stride, c_stride,
                     accumulate || start > 0, thread);
    });
  }
}

}  // namespace lowbit::cpu
