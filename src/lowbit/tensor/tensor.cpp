#include "lowbit/tensor/tensor.h"

#include <cstdlib>

namespace lowbit {

Tensor allocate_host(int64_t rows, int64_t cols, DType dtype) {
  Tensor tensor;
  tensor.rows = rows;
  tensor.cols = cols;
  tensor.dtype = dtype;
  const size_t bytes = (static_cast<size_t>(tensor.bytes()) + 63) / 64 * 64;
  void* data = std::aligned_alloc(64, bytes == 0 ? 64 : bytes);
  LOWBIT_CHECK_KIND(data != nullptr, ErrorKind::kOutOfMemory, "out of memory: ", bytes >> 20,
                    " MiB for a buffer of ", rows, " x ", cols, " ", name_of(dtype),
                    "; a shorter context (-c) needs less");
  tensor.storage = std::shared_ptr<void>(data, std::free);
  tensor.data = data;
  return tensor;
}

}  // namespace lowbit
