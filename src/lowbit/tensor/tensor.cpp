#include "lowbit/tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace lowbit {

Tensor allocate_host(int64_t rows, int64_t cols, DType dtype) {
  Tensor tensor;
  tensor.rows = rows;
  tensor.cols = cols;
  tensor.dtype = dtype;
  // What is large goes into huge pages: one translation then covers 2 MiB instead of 4 KiB.
  constexpr size_t kHugePage = size_t{2} << 20;
  const auto size = static_cast<size_t>(tensor.bytes());
  const size_t alignment = size >= 2 * kHugePage ? kHugePage : 64;
  const size_t bytes = std::max<size_t>(1, (size + alignment - 1) / alignment) * alignment;
  void* data = std::aligned_alloc(alignment, bytes);
  if (data != nullptr && alignment == kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  LOWBIT_CHECK_KIND(data != nullptr, ErrorKind::kOutOfMemory, "out of memory: ", bytes >> 20,
                    " MiB for a buffer of ", rows, " x ", cols, " ", name_of(dtype),
                    "; a shorter context (-c) needs less");
  tensor.storage = std::shared_ptr<void>(data, std::free);
  tensor.data = data;
  return tensor;
}

}  // namespace lowbit
