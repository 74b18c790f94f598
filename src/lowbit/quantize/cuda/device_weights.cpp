#include "lowbit/quantize/cuda/device_weights.h"

#include <limits>

#include "lowbit/base/check.h"
#include "lowbit/quantize/grid.h"
#include "lowbit/tensor/tensor.h"

namespace lowbit::cuda {

std::shared_ptr<void> allocate_on(cudaStream_t stream, size_t bytes, const char* what) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes == 0 ? 1 : bytes, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return allocate(bytes, what);  // says what was asked for, if that fails too
  }
  check(status, "cudaMallocAsync");
  return std::shared_ptr<void>(data, [stream](void* memory) { cudaFreeAsync(memory, stream); });
}

void keep_freed_memory() {
  cudaMemPool_t pool = nullptr;
  LOWBIT_CUDA(cudaDeviceGetDefaultMemPool(&pool, 0));
  uint64_t bytes = uint64_t{8} << 30;  // at most: others need memory too
  LOWBIT_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &bytes));
}

namespace {

// Whether the codes are 16-bit floats in the order of the columns.
bool is_half(const QTensor& weight) {
  return (weight.scheme.code == Code::kF16 || weight.scheme.code == Code::kBF16) &&
         weight.input_order.empty() && !weight.outliers;
}

std::vector<float> dequantized(const QTensor& weight, ThreadPool* pool) {
  std::vector<float> values(static_cast<size_t>(weight.rows * weight.cols));
  const auto one_row = [&](int64_t row, int) {
    dequantize_row(weight, row, values.data() + row * weight.cols);
  };
  if (pool != nullptr) {
    pool->parallel_for(weight.rows, one_row);
  } else {
    for (int64_t row = 0; row < weight.rows; ++row) one_row(row, 0);
  }
  return values;
}

}  // namespace

DeviceBuffer<float> upload_weight(const LinearJob& job, Transfers& transfers) {
  const int64_t count = job.rows * job.cols;
  const cudaStream_t stream = transfers.stream();
  DeviceBuffer<float> values(count, "a weight in fp32", stream);
  const auto bytes = static_cast<size_t>(count) * sizeof(float);
  if (job.stored == nullptr) {
    transfers.upload(job.weight.data(), values.get(), bytes, job.pool);
  } else if (is_half(*job.stored)) {
    DeviceBuffer<uint16_t> halves(count, "a weight in 16 bits", stream);
    transfers.upload(job.stored->codes.data, halves.get(), bytes / 2, job.pool);
    launch_widen(halves.get(), job.stored->scheme.code == Code::kBF16, count, values.get(), stream);
  } else {
    transfers.upload(dequantized(*job.stored, job.pool).data(), values.get(), bytes, job.pool);
  }
  return values;
}

void check_integers(const char* method, int fewest_bits, bool float_zeros, const LinearJob& job,
                    const QuantScheme& scheme) {
  LOWBIT_CHECK(scheme.code == Code::kInt && scheme.bits >= fewest_bits && scheme.bits <= 8 &&
                   scheme.group_rows == 1 && (scheme.zero == Zero::kOffset) == float_zeros,
               job.name, ": ", method, " does not make ", name_of(scheme));
  const int64_t count = job.rows * job.cols;
  const bool fits = job.stored != nullptr
                        ? job.stored->rows == job.rows && job.stored->cols == job.cols
                        : static_cast<int64_t>(job.weight.size()) == count;
  LOWBIT_CHECK(job.rows > 0 && job.cols > 0 && fits, job.name, ": not ", job.rows, " x ", job.cols,
               " weights");
  LOWBIT_CHECK_KIND(count <= std::numeric_limits<int32_t>::max(), ErrorKind::kUnsupported, job.name,
                    ": ", job.rows, " x ", job.cols, " weights are too many for backend cuda");
  LOWBIT_CHECK(scheme.group_size > 0 && job.cols % scheme.group_size == 0, job.name, ": groups of ",
               scheme.group_size, " do not divide ", job.cols, " columns");
}

ResultBuffers::ResultBuffers(const LinearJob& job, const QuantScheme& scheme, Transfers& transfers)
    : job_(job), transfers_(transfers) {
  const cudaStream_t stream = transfers.stream();
  weight_.scheme = scheme;
  weight_.rows = job.rows;
  weight_.cols = job.cols;
  const int64_t groups = job.rows * weight_.groups();
  scales_ = {groups, "scales", stream};
  if (scheme.zero == Zero::kInt) zeros_ = {groups, "zeros", stream};
  if (scheme.zero == Zero::kOffset) offsets_ = {groups, "zeros", stream};
  codes_ = {job.rows * job.cols, "codes", stream};
  faults_ = {1, "faults", stream};
  faults_.fill(0xff);
}

GroupsView ResultBuffers::view(const float* weight) const {
  const int64_t groups = weight_.groups();
  return {weight, weight_.cols, weight_.rows, groups, weight_.scheme.group_size, groups};
}

void ResultBuffers::check_finite(const float* weight) {
  launch_check_finite(weight, weight_.rows * weight_.cols, faults_.get(), transfers_.stream());
}

void ResultBuffers::check_faults() const {
  Faults faults;
  faults_.download(&faults, 1);
  if (faults.not_finite != kNoFault) {
    const auto row = static_cast<int64_t>(faults.not_finite) / job_.cols;
    std::vector<float> values(static_cast<size_t>(job_.cols));
    if (job_.stored != nullptr) {
      dequantize_row(*job_.stored, row, values.data());
    } else {
      const auto from = job_.weight.subspan(row * job_.cols, job_.cols);
      values.assign(from.begin(), from.end());
    }
    lowbit::check_finite(job_.name, values, row);
  }
  if (faults.overflow != kNoFault) {
    const auto row = static_cast<int64_t>(faults.overflow) / weight_.groups();
    check_scale({std::numeric_limits<float>::infinity(), 0}, {job_.name, row});
  }
}

QTensor ResultBuffers::take() {
  const int64_t bytes = weight_.rows * weight_.row_bytes();
  DeviceBuffer<uint8_t> packed(bytes, "packed codes", transfers_.stream());
  launch_pack_codes(codes_.get(), weight_.rows, weight_.cols, weight_.scheme.bits, packed.get(),
                    transfers_.stream());
  check_faults();
  const auto fetch = [&](auto& to, const auto& from) {
    if (from.count() == 0) return;
    to.resize(static_cast<size_t>(from.count()));
    transfers_.download(from.get(), to.data(), to.size() * sizeof(to[0]), job_.pool);
  };
  fetch(weight_.scales, scales_);
  fetch(weight_.zeros, zeros_);
  fetch(weight_.offsets, offsets_);
  // Uninitialized: its pages are first touched by the threads that copy.
  const Tensor codes = allocate_host(1, bytes, DType::kU8, Pages::kHuge);
  transfers_.download(packed.get(), codes.data, static_cast<size_t>(bytes), job_.pool);
  weight_.codes = Bytes::view(codes.storage, codes.as<uint8_t>(), static_cast<size_t>(bytes));
  return std::move(weight_);
}

}  // namespace lowbit::cuda
