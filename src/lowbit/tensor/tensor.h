// Tensor: a dense row-major matrix of activations, host or device, with shared ownership.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit {

struct Tensor {
  std::shared_ptr<void> storage;  // keeps data alive; may be shared by views
  void* data = nullptr;           // [rows][cols]
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kF32;

  int64_t size() const { return rows * cols; }
  int64_t bytes() const { return size() * size_of(dtype); }

  // Typed access; the caller knows the dtype (asserted by size only).
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  float* row(int64_t index) const { return static_cast<float*>(data) + index * cols; }

  // A view of the first `count` rows.
  Tensor first(int64_t count) const {
    LOWBIT_CHECK(count >= 0 && count <= rows, "tensor view of ", count, " rows of ", rows);
    Tensor view = *this;
    view.rows = count;
    return view;
  }
};

// kHuge: 2 MiB pages where the system has them, for memory that is used as a whole; one address
// translation then covers 512 times as much, but the first touch takes all of a page.
enum class Pages { kSmall, kHuge };

// 64-byte aligned, uninitialized host memory. Throws kOutOfMemory with the size asked for.
Tensor allocate_host(int64_t rows, int64_t cols, DType dtype = DType::kF32,
                     Pages pages = Pages::kSmall);

}  // namespace lowbit
