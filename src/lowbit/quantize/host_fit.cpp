#include "lowbit/quantize/host_fit.h"

#include <algorithm>

#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/parallel_copy.h"
#include "lowbit/quantize/rms_norm.h"
#include "lowbit/runtime/cpu/fit_kernels.h"

namespace lowbit {

namespace {

constexpr int64_t kRows = 16;           // of a thread's turn: a call a row would cost more
constexpr int64_t kElements = 1 << 14;  // the same
constexpr int64_t kColumns = 32;        // the same

// Rotates the pairs (i, i + half) of one head.
void rotate_head(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

// Turns them back: a rotation's transpose.
void rotate_head_back(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] + b * sin[i];
    head[half + i] = b * cos[i] - a * sin[i];
  }
}

}  // namespace

// body(first, last) for shares of [0, count)
template <typename Body>
void HostFit::for_shares(int64_t count, int64_t share, const Body& body) {
  pool_.parallel_for((count + share - 1) / share, [&](int64_t index, int) {
    body(index * share, std::min(count, (index + 1) * share));
  });
}

void HostFit::fill_zero(Array& values) {
  for_shares(size_of(values), kElements, [&](int64_t first, int64_t last) {
    std::fill(values.begin() + first, values.begin() + last, 0.f);
  });
}

void HostFit::copy(const float* from, float* to, int64_t count) {
  const auto size = static_cast<size_t>(count);
  parallel_copy(pool_, {from, size}, {to, size});
}

void HostFit::add_bias(float* y, const Array& bias, int64_t rows) {
  const int64_t size = size_of(bias);
  for_shares(rows, kRows, [&](int64_t first, int64_t last) {
    for (int64_t at = first * size; at < last * size; ++at) {
      y[at] += bias[static_cast<size_t>(at % size)];
    }
  });
}

void HostFit::rms_norm(const float* x, const Array& weight, float eps, int64_t rows, float* out) {
  const int64_t size = size_of(weight);
  for_shares(rows, kRows, [&](int64_t first, int64_t last) {
    for (int64_t at = first * size; at < last * size; at += size) {
      lowbit::rms_norm(x + at, weight, eps, out + at);
    }
  });
}

void HostFit::rms_norm_backward(const float* x, const Array& weight, float eps, int64_t rows,
                                const float* dout, float* dx, bool add) {
  const int64_t size = size_of(weight);
  for_shares(rows, kRows, [&](int64_t first, int64_t last) {
    for (int64_t at = first * size; at < last * size; at += size) {
      lowbit::rms_norm_backward(x + at, weight, eps, dout + at, dx + at, add);
    }
  });
}

void HostFit::rotate(float* x, const Array& cos, const Array& sin, int64_t tokens, int64_t length,
                     int64_t heads, int64_t dim, bool back) {
  const int64_t half = dim / 2;
  for_shares(tokens, kRows, [&](int64_t first, int64_t last) {
    for (int64_t token = first; token < last; ++token) {
      const int64_t table = token % length * half;
      for (int64_t at = token * heads * dim; at < (token + 1) * heads * dim; at += dim) {
        (back ? rotate_head_back : rotate_head)(x + at, cos.data() + table, sin.data() + table,
                                                half);
      }
    }
  });
}

void HostFit::swiglu(const float* gate, const float* up, float* out, int64_t count) {
  for_shares(count, kElements, [&](int64_t first, int64_t last) {
    cpu::fit_kernels().swiglu(gate + first, up + first, out + first, last - first);
  });
}

void HostFit::swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                              float* dup, int64_t count) {
  for_shares(count, kElements, [&](int64_t first, int64_t last) {
    cpu::fit_kernels().swiglu_backward(gate + first, up + first, dout + first, dgate + first,
                                       dup + first, last - first);
  });
}

void HostFit::inverse_squares(const float* x, int64_t rows, int64_t size, float* weights) {
  pool_.parallel_for(rows, [&](int64_t row, int) {
    const float* values = x + row * size;
    const float squares = sum_of(size, [&](int64_t i) { return values[i] * values[i]; });
    weights[row] = 1.f / std::max(squares, 1e-30f);
  });
}

void HostFit::add_weighted_squares(const float* x, const float* weights, int64_t rows, int64_t size,
                                   float* sums) {
  for_shares(size, kColumns, [&](int64_t first, int64_t last) {
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = x + row * size;
      for (int64_t k = first; k < last; ++k) sums[k] += weights[row] * values[k] * values[k];
    }
  });
}

void HostFit::weighted_difference(float* y, const float* target, const float* weights, int64_t rows,
                                  int64_t size, float* losses) {
  pool_.parallel_for(rows, [&](int64_t row, int) {
    float* values = y + row * size;
    const float* wanted = target + row * size;
    const float weight = weights[row];
    for (int64_t i = 0; i < size; ++i) values[i] -= wanted[i];
    losses[row] = weight * sum_of(size, [&](int64_t i) { return values[i] * values[i]; });
    for (int64_t i = 0; i < size; ++i) values[i] *= weight;
  });
}

}  // namespace lowbit
