// Blocked as by Goto and van de Geijn (ACM TOMS 34(3), 2008): a slice of kDepth rows of b is packed
// once for all threads, a block of a once per task, and register tiles walk over both.
#include "lowbit/runtime/cpu/gemm.h"

#include <algorithm>

#include "lowbit/base/environment.h"
#include "lowbit/runtime/cpu/isa.h"

namespace lowbit::cpu {

namespace {

constexpr int64_t kDepth = 256;         // k of one slice: a panel of b stays in the first cache
constexpr int64_t kMostRows = 112;      // of a per task: stays in the second cache
constexpr int64_t kBlockColumns = 768;  // of b per task; half of it for more than 4 threads
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
      kernel_(select_gemm(isa.empty() ? environment_variable("LOWBIT_CPU_ISA") : isa)),
      packed_a_(static_cast<size_t>(pool == nullptr ? 1 : pool->size())) {}

void Gemm::run(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (pool_ != nullptr && count > 1) {
    pool_->parallel_for(count, body);
  } else {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
  }
}

int64_t Gemm::padded(int64_t depth) const {
  return ceil_div(depth, kernel_.depth_unit) * kernel_.depth_unit;
}

void Gemm::pack_b(MatrixView b, int64_t k, int64_t n) {
  const int64_t width = kernel_.columns, panels = ceil_div(n, width), stride = padded(k);
  float* out = aligned(packed_b_, panels * width * stride);
  const MatrixView columns = {b.data, b.column_stride, b.row_stride};
  const int64_t panels_per_task = pool_ != nullptr && pool_->size() > 4 ? 1 : 4;
  run(ceil_div(panels, panels_per_task), [&](int64_t task, int) {
    const int64_t end = std::min(panels, (task + 1) * panels_per_task);
    for (int64_t panel = task * panels_per_task; panel < end; ++panel) {
      const int64_t first = panel * width, count = std::min(width, n - first);
      if (kernel_.pack_b != nullptr) {
        kernel_.pack_b(columns, first, count, k, out + first * stride);
      } else {
        pack_panel(columns, first, count, width, k, out + first * stride);
      }
    }
  });
}

void Gemm::multiply_block(MatrixView a, int64_t rows, int64_t k, int64_t first_panel,
                          int64_t panels, int64_t n, float* c, int64_t c_stride, bool accumulate,
                          int thread) {
  const int64_t height = kernel_.rows, width = kernel_.columns;
  const int64_t tiles = ceil_div(rows, height), depth = padded(k);
  const int64_t edge_size = height * width;
  float* packed = aligned(packed_a_[static_cast<size_t>(thread)],
                          tiles * height * depth + edge_size + kAlignment);
  float* edge = packed + ceil_div(tiles * height * depth, kAlignment) * kAlignment;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * height, count = std::min(height, rows - first);
    if (kernel_.pack_a != nullptr) {
      kernel_.pack_a(a, first, count, k, packed + first * depth);
    } else {
      pack_panel(a, first, count, height, k, packed + first * depth);
    }
  }
  const float* packed_b = aligned(packed_b_, 0);
  for (int64_t panel = first_panel; panel < first_panel + panels; ++panel) {
    const float* b = packed_b + panel * width * depth;
    const int64_t columns = std::min(width, n - panel * width);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * height, count = std::min(height, rows - first);
      float* out = c + first * c_stride + panel * width;
      if (count == height && columns == width) {
        kernel_.tile(depth, packed + first * depth, b, out, c_stride, accumulate);
        continue;
      }
      // The kernel itself adds to what is there: AMX does so one step of k after another.
      for (int64_t i = 0; accumulate && i < count; ++i) {
        std::copy_n(out + i * c_stride, columns, edge + i * width);
      }
      kernel_.tile(depth, packed + first * depth, b, edge, width, accumulate);
      for (int64_t i = 0; i < count; ++i) {
        std::copy_n(edge + i * width, columns, out + i * c_stride);
      }
    }
  }
}

// Blocks of a and b for tasks that keep all threads busy to the end. No result depends on them.
Gemm::Blocks Gemm::blocks_for(int64_t m, int64_t n) const {
  const int64_t threads = pool_ == nullptr ? 1 : pool_->size();
  const int64_t columns = threads > 4 ? kBlockColumns / 2 : kBlockColumns;
  Blocks blocks;
  blocks.panels = columns / kernel_.columns;
  const int64_t wanted = ceil_div(4 * threads, ceil_div(n, columns));
  const int64_t tiles = ceil_div(ceil_div(m, wanted), kernel_.rows);
  const int64_t most = ceil_div(kMostRows, kernel_.rows);
  blocks.rows = std::clamp<int64_t>(tiles, 2, most) * kernel_.rows;
  return blocks;
}

// lower: only up to the diagonal.
void Gemm::multiply_blocks(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c,
                           int64_t c_stride, bool accumulate, bool lower) {
  if (k == 0 && !accumulate) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * c_stride, n, 0.f);
  }
  const int64_t panels = ceil_div(n, kernel_.columns);
  const Blocks block = blocks_for(m, n);
  const int64_t row_blocks = ceil_div(m, block.rows);
  const int64_t column_blocks = ceil_div(panels, block.panels);
  for (int64_t start = 0; start < k; start += kDepth) {
    const int64_t depth = std::min(kDepth, k - start);
    pack_b({b.data + start * b.row_stride, b.row_stride, b.column_stride}, depth, n);
    run(row_blocks * column_blocks, [&](int64_t task, int thread) {
      const int64_t row = task / column_blocks * block.rows;
      const int64_t rows = std::min(block.rows, m - row);
      const int64_t panel = task % column_blocks * block.panels;
      const int64_t last = lower ? ceil_div(row + rows, kernel_.columns) : panels;
      const int64_t count = std::min(block.panels, last - panel);
      if (count <= 0) return;
      const float* from = a.data + row * a.row_stride + start * a.column_stride;
      multiply_block({from, a.row_stride, a.column_stride}, rows, depth, panel, count, n,
                     c + row * c_stride, c_stride, accumulate || start > 0, thread);
    });
  }
}

}  // namespace lowbit::cpu
