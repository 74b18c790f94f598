#include "lowbit/runtime/cuda/cuda_backend.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <numbers>
#include <tuple>

#include "lowbit/base/check.h"
#include "lowbit/base/environment.h"
#include "lowbit/base/limits.h"
#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/kernels.h"
#include "lowbit/runtime/cuda/launch_watch.h"
#include "lowbit/runtime/cuda/limits.h"
#include "lowbit/runtime/cuda/linear.h"
#include "lowbit/runtime/cuda/logit_answers.h"
#include "lowbit/runtime/cuda/self_check.h"
#include "lowbit/runtime/cuda/step.h"
#include "lowbit/runtime/host_backend.h"

namespace lowbit {

namespace {

using cuda::AttentionDims;
using cuda::CacheView;

// Attention in fp32: up to here a block of threads takes one page; up to here a span of pages.
constexpr int kManyTokens = 8, kMostTokens = 64;
constexpr int64_t kMostWorkspace = int64_t{64} << 20;  // floats, of partial attention
constexpr int64_t kRecordedTokens = 64;                // decode steps of more are not recorded
constexpr size_t kMostRecordings = 64;

void require_device() {
  const std::string problem = cuda::device_problem();
  LOWBIT_CHECK_KIND(problem.empty(), ErrorKind::kDevice, "backend cuda: ", problem,
                    "; --backend cpu runs everywhere");
}

Tensor device_tensor(int64_t rows, int64_t cols, DType dtype, const char* what) {
  Tensor tensor;
  tensor.rows = rows;
  tensor.cols = cols;
  tensor.dtype = dtype;
  tensor.storage = cuda::allocate(static_cast<size_t>(tensor.bytes()),
                                  concat(what, " of ", rows, " x ", cols, " ", name_of(dtype)));
  tensor.data = tensor.storage.get();
  return tensor;
}

AttentionDims dims_of(const AttentionShape& shape) {
  return {static_cast<int>(shape.heads), static_cast<int>(shape.kv_heads),
          static_cast<int>(shape.head_dim), static_cast<int>(shape.sliding_window)};
}

cuda::CacheType type_of(const KvCacheSpec& spec) {
  switch (spec.dtype) {
    case DType::kF32:
      return cuda::CacheType::kF32;
    case DType::kE4M3:
      return cuda::CacheType::kE4M3;
    case DType::kI8:
      return cuda::CacheType::kInt8;
    case DType::kI4:
      return cuda::CacheType::kInt4;
    default:
      return cuda::CacheType::kF16;
  }
}

CacheView view_of(const KvCache& cache, int64_t layer) {
  return {cache.page(layer, 0, 0, 0), cache.page(layer, 1, 0, 0), type_of(cache.spec),
          cache.spec.blocks};
}

int count_of(int64_t value) { return static_cast<int>(value); }

class CudaBackend : public HostBackend {
 public:
  explicit CudaBackend(const BackendOptions& options);
  ~CudaBackend() override;

  std::string name() const override { return "cuda"; }
  std::string description() const override {
    return concat("cuda ", device_name_, ", ", linears_->exact ? "f32" : "16-bit", " activations",
                  input_note(!linears_->exact), fallbacks_);
  }

  std::unique_ptr<Linear> make_linear(std::vector<LinearWeight> parts) override {
    forget_recordings();
    note_inputs(parts, rounds_tokens);
    return cuda::make_cuda_linear(std::move(parts), linears_);
  }
  Tensor upload(std::span<const float> values) override;
  Tensor allocate(int64_t rows, int64_t cols) override;
  KvCache make_kv_cache(const KvCacheSpec& spec) override;
  int64_t cache_bytes() const override;
  void copy_block(KvCache& cache, int64_t from, int64_t to) override;
  void copy_to_host(const Tensor& from, std::span<float> to) override;
  void copy_from_host(std::span<const float> from, Tensor& to) override;

  void begin_step(const StepBatch& batch) override;
  void run_step(const StepBatch& batch, const KvCache& cache, const void* calls_of,
                const std::function<void()>& calls) override;
  void zero(Tensor& x) override;
  void add_rms_norm(Tensor& residual, const Tensor& hidden, const Tensor& weight, float eps,
                    Tensor& out) override;
  void qk_norm(Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
               const Tensor& k_weight, float eps) override;
  void rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                      const Tensor& sin, KvCache& cache, int64_t layer) override;
  void attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                 int64_t layer, Tensor& out) override;
  void silu_mul(const Tensor& gate_up, Tensor& out) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& out) override;
  bool answer(const Tensor& logits, std::span<const LogitQuery> queries,
              std::span<LogitAnswer> answers) override {
    answers_.answer(logits, queries, answers, linears_->shared_bytes, stream_);
    return true;
  }

  void rope_and_attend(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                       const Tensor& sin, KvCache& cache, int64_t layer, Tensor& out) override;

  std::vector<double> times(const std::function<void()>& calls, int repetitions);
  cudaStream_t stream() const { return stream_; }

 private:
  // Steps with equal keys make the same launches with the same arguments.
  using RecordingKey = std::tuple<const void*, const void*, int64_t, int64_t, int>;
  struct Recording {
    cudaGraphExec_t graph = nullptr;  // null: has run once, unrecorded, and so reserved its memory
  };
  void check_tensor_cores();
  void allow_chains();
  void forget_recordings();
  void record(Recording& recording, const std::function<void()>& calls);
  void attend(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache, int64_t layer,
              const float* cos, const float* sin, Tensor& out);
  bool attends_plainly(const AttentionDims& dims, cuda::CacheType type) const {
    return plain_attention_ || linears_->exact || !cuda::tensor_cores_fit(dims, type);
  }
  int64_t take_blocks(cuda::AttentionLaunch& a, cuda::Spans which, int queries) const;
  void attend_few(cuda::AttentionLaunch& a);
  void attend_plain(cuda::AttentionLaunch& a, cuda::Spans which);
  void reserve_workspace(cuda::AttentionLaunch& a, int64_t floats);
  int attention_pages() const;
  int32_t* arrivals(int64_t count);

  cudaStream_t stream_ = nullptr;
  std::string device_name_;
  std::string fallbacks_;  // ", products without wgmma"
  bool records_ = true;
  bool plain_attention_ = false;  // in fp32, whatever tensor cores could do
  std::shared_ptr<cuda::LinearEnvironment> linears_ = std::make_shared<cuda::LinearEnvironment>();
  cuda::StepData step_;
  cuda::LogitAnswers answers_;
  cuda::Scratch workspace_{"partial attention"};
  size_t workspace_bytes_ = 0;
  std::shared_ptr<void> arrivals_;  // zeros between launches
  int64_t arrival_count_ = 0;
  std::shared_ptr<void> chain_arrivals_;  // of blocks of threads, counted for ever
  std::map<RecordingKey, Recording> recordings_;
  void* staging_ = nullptr;  // pinned, for copies to the host
  size_t staging_bytes_ = 0;
};

CudaBackend::CudaBackend(const BackendOptions& options) : HostBackend(options.threads) {
  require_device();
  LOWBIT_CUDA(cudaSetDevice(0));
  cudaDeviceProp properties;
  LOWBIT_CUDA(cudaGetDeviceProperties(&properties, 0));
  device_name_ = properties.name;
  LOWBIT_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  linears_->stream = stream_;
  linears_->processors = properties.multiProcessorCount;
  linears_->shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  linears_->wgmma = cuda::has_wgmma();
  linears_->exact = options.activations == Activations::kF32;
  linears_->forced_layout = environment_variable("LOWBIT_LINEAR");
  linears_->forced_kernel = environment_variable("LOWBIT_CUDA_LINEAR");
  records_ = environment_variable("LOWBIT_CUDA_GRAPHS") != "0";
  cuda::sync_each_kernel(options.sync_each_kernel);
  plain_attention_ = environment_variable("LOWBIT_CUDA_ATTENTION") == "plain";
  check_tensor_cores();
  allow_chains();
}

// The backend that may chain products: of two such kernels at a time, each could wait for
// multiprocessors that the other holds.
std::atomic<const void*> g_chaining{nullptr};

void CudaBackend::allow_chains() {
  if (!cuda::has_wgmma() || linears_->exact || !linears_->forced_kernel.empty()) return;
  const std::string longest = environment_variable("LOWBIT_CUDA_CHAIN");
  const int asked = longest.size() == 1 ? longest[0] - '0' : cuda::kMostLinks;
  const void* none = nullptr;
  if (asked <= 0 || !g_chaining.compare_exchange_strong(none, this)) return;
  constexpr size_t kBytes = sizeof(uint64_t) * (cuda::kMostLinks - 1);
  chain_arrivals_ = cuda::allocate(kBytes, "counters");
  LOWBIT_CUDA(cudaMemsetAsync(chain_arrivals_.get(), 0, kBytes, stream_));
  linears_->chain.set_device(linears_->processors, linears_->shared_bytes, stream_);
  linears_->chain.allow(std::min(asked, cuda::kMostLinks),
                        static_cast<uint64_t*>(chain_arrivals_.get()));
}

// Falls back to the kernels that rest on nothing, and says so in the description.
void CudaBackend::check_tensor_cores() {
  if (!linears_->wgmma) return;
  const std::string& forced = linears_->forced_kernel;
  linears_->rounded = !linears_->exact && (forced.empty() || forced == "wgmma");
  if (linears_->rounded && linears_->forced_layout.empty()) {
    const bool agree =
        cuda::rounded_products_agree(*this, [this](bool rounded) { linears_->rounded = rounded; });
    if (!agree) fallbacks_ += ", rounded inputs as halves";
    forget_inputs();
  }
  if (linears_->forced_kernel.empty() && linears_->forced_layout.empty()) {
    linears_->wgmma = cuda::products_agree(
        *this, [this](bool wgmma) { linears_->forced_kernel = wgmma ? "wgmma" : "tile"; });
    linears_->forced_kernel.clear();
    if (!linears_->wgmma) fallbacks_ += ", products without wgmma";
  }
  if (plain_attention_ || linears_->exact) return;
  plain_attention_ =
      !cuda::attention_agrees(*this, [this](bool plain) { plain_attention_ = plain; });
  if (plain_attention_) fallbacks_ += ", attention without tensor cores";
}

CudaBackend::~CudaBackend() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  const void* self = this;
  g_chaining.compare_exchange_strong(self, nullptr);
  forget_recordings();
  if (staging_ != nullptr) cudaFreeHost(staging_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Tensor CudaBackend::upload(std::span<const float> values) {
  Tensor tensor = device_tensor(1, static_cast<int64_t>(values.size()), DType::kF32, "a constant");
  copy_from_host(values, tensor);
  return tensor;
}

Tensor CudaBackend::allocate(int64_t rows, int64_t cols) {
  LOWBIT_CHECK(rows >= 0 && cols >= 0 && rows <= limits::kContext && cols <= limits::kVocabSize * 4,
               "activations of ", rows, " x ", cols, " are not possible");
  forget_recordings();
  return device_tensor(rows, cols, DType::kF32, "activations");
}

KvCache CudaBackend::make_kv_cache(const KvCacheSpec& spec) {
  check_cache_spec(spec, {DType::kF16, DType::kF32, DType::kE4M3, DType::kI8, DType::kI4});
  forget_recordings();
  KvCache cache{spec,
                device_tensor(spec.pages(), spec.page_bytes(), DType::kU8, "key/value cache")};
  // NaN, so that reading what was never written shows.
  LOWBIT_CUDA(
      cudaMemsetAsync(cache.data.data, 0xff, static_cast<size_t>(cache.data.bytes()), stream_));
  if (spec.dtype == DType::kE4M3) {  // only scales may be NaN: kernels set those aside, not codes
    LOWBIT_CUDA(cudaMemset2DAsync(cache.data.data, static_cast<size_t>(spec.page_bytes()), 0,
                                  static_cast<size_t>(kBlockTokens * spec.row_bytes()),
                                  static_cast<size_t>(spec.pages()), stream_));
  }
  return cache;
}

// Nine tenths of what is free, as vLLM: the rest is for workspaces.
int64_t CudaBackend::cache_bytes() const {
  size_t free_bytes = 0, total_bytes = 0;
  LOWBIT_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return static_cast<int64_t>(free_bytes / 10 * 9);
}

void CudaBackend::copy_block(KvCache& cache, int64_t from, int64_t to) {
  check_block_copy(cache.spec, from, to);
  const int64_t bytes = cache.spec.bytes() / (2 * cache.spec.layers * cache.spec.blocks);
  char* data = cache.data.as<char>();
  for (int64_t plane = 0; plane < 2 * cache.spec.layers; ++plane) {
    char* blocks = data + plane * cache.spec.blocks * bytes;
    LOWBIT_CUDA(cudaMemcpyAsync(blocks + to * bytes, blocks + from * bytes,
                                static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_));
  }
}

void CudaBackend::copy_to_host(const Tensor& from, std::span<float> to) {
  LOWBIT_CHECK(from.dtype == DType::kF32 && from.size() == static_cast<int64_t>(to.size()),
               "copy to host: ", from.rows, " x ", from.cols, " ", name_of(from.dtype), " into ",
               to.size(), " floats");
  constexpr size_t kMostStaged = size_t{64} << 20;
  if (to.size_bytes() > kMostStaged) {
    LOWBIT_CUDA(
        cudaMemcpyAsync(to.data(), from.data, to.size_bytes(), cudaMemcpyDeviceToHost, stream_));
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
    return;
  }
  if (to.size_bytes() > staging_bytes_) {
    if (staging_ != nullptr) LOWBIT_CUDA(cudaFreeHost(staging_));
    staging_ = nullptr;
    staging_bytes_ = 0;
    LOWBIT_CUDA(cudaMallocHost(&staging_, to.size_bytes()));
    staging_bytes_ = to.size_bytes();
  }
  LOWBIT_CUDA(
      cudaMemcpyAsync(staging_, from.data, to.size_bytes(), cudaMemcpyDeviceToHost, stream_));
  LOWBIT_CUDA(cudaStreamSynchronize(stream_));
  std::memcpy(to.data(), staging_, to.size_bytes());
}

void CudaBackend::copy_from_host(std::span<const float> from, Tensor& to) {
  LOWBIT_CHECK(to.dtype == DType::kF32 && to.size() == static_cast<int64_t>(from.size()),
               "copy from host: ", from.size(), " floats into ", to.rows, " x ", to.cols, " ",
               name_of(to.dtype));
  LOWBIT_CUDA(
      cudaMemcpyAsync(to.data, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream_));
  LOWBIT_CUDA(cudaStreamSynchronize(stream_));
}

void CudaBackend::begin_step(const StepBatch& batch) {
  HostBackend::begin_step(batch);
  if (step_.upload(batch, stream_)) forget_recordings();
  linears_->tokens = step_.tokens();
  linears_->logit_rows = step_.logit_rows();
}

void CudaBackend::forget_recordings() {
  for (auto& [key, recording] : recordings_) {
    if (recording.graph != nullptr) cudaGraphExecDestroy(recording.graph);
  }
  recordings_.clear();
}

// Rounded up, so that a recorded step serves longer contexts too.
int CudaBackend::attention_pages() const {
  const int pages = step_.pages();
  if (!step_.decodes()) return pages;
  int step = 4;
  while (step * 8 < pages) step *= 2;
  return (pages + step - 1) / step * step;
}

void CudaBackend::run_step(const StepBatch& batch, const KvCache& cache, const void* calls_of,
                           const std::function<void()>& calls) {
  begin_step(batch);
  if (!records_ || cuda::watching() || !step_.decodes() || batch.size() > kRecordedTokens) {
    return linears_->chain.run(calls);
  }
  if (recordings_.size() > kMostRecordings) forget_recordings();
  const RecordingKey key{calls_of, cache.data.data, batch.size(),
                         static_cast<int64_t>(batch.logit_rows.size()), attention_pages()};
  const auto [found, fresh] = recordings_.try_emplace(key);
  // The first time the calls reserve what memory they need, which would forget the recordings.
  if (fresh) return linears_->chain.run(calls);
  check_blocks("step", cache);
  if (found->second.graph == nullptr) record(found->second, calls);
  LOWBIT_CUDA(cudaGraphLaunch(found->second.graph, stream_));
}

void CudaBackend::record(Recording& recording, const std::function<void()>& calls) {
  LOWBIT_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    linears_->chain.run(calls);
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  LOWBIT_CUDA(cudaStreamEndCapture(stream_, &graph));
  const cudaError_t status = cudaGraphInstantiate(&recording.graph, graph, 0);
  cudaGraphDestroy(graph);
  cuda::check(status, "cudaGraphInstantiate");
}

std::vector<double> CudaBackend::times(const std::function<void()>& calls, int repetitions) {
  Recording recording;
  record(recording, calls);
  cudaEvent_t start, stop;
  LOWBIT_CUDA(cudaEventCreate(&start));
  LOWBIT_CUDA(cudaEventCreate(&stop));
  std::vector<double> seconds;
  for (int i = -1; i < repetitions; ++i) {  // the first is not counted
    LOWBIT_CUDA(cudaEventRecord(start, stream_));
    LOWBIT_CUDA(cudaGraphLaunch(recording.graph, stream_));
    LOWBIT_CUDA(cudaEventRecord(stop, stream_));
    LOWBIT_CUDA(cudaEventSynchronize(stop));
    float milliseconds = 0;
    LOWBIT_CUDA(cudaEventElapsedTime(&milliseconds, start, stop));
    if (i >= 0) seconds.push_back(milliseconds * 1e-3);
  }
  LOWBIT_CUDA(cudaEventDestroy(start));
  LOWBIT_CUDA(cudaEventDestroy(stop));
  LOWBIT_CUDA(cudaGraphExecDestroy(recording.graph));
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

void CudaBackend::zero(Tensor& x) {
  linears_->chain.flush();
  LOWBIT_CUDA(cudaMemsetAsync(x.data, 0, static_cast<size_t>(x.bytes()), stream_));
}

void CudaBackend::add_rms_norm(Tensor& residual, const Tensor& hidden, const Tensor& weight,
                               float eps, Tensor& out) {
  check_norm(residual, hidden, weight, out);
  if (hidden.rows == 0) return;
  if (hidden.rows == 1 &&
      linears_->chain.add_rms_norm(residual.as<float>(), hidden.as<float>(), weight.as<float>(),
                                   count_of(hidden.cols), eps, out.as<float>())) {
    return;
  }
  linears_->chain.flush();
  cuda::launch_add_rms_norm(residual.as<float>(), hidden.as<float>(), weight.as<float>(),
                            count_of(hidden.rows), count_of(hidden.cols), eps, out.as<float>(),
                            stream_);
}

void CudaBackend::qk_norm(Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight,
                          const Tensor& k_weight, float eps) {
  check_qk_norm(qkv, shape, q_weight, k_weight);
  linears_->chain.flush();
  cuda::launch_qk_norm(qkv.as<float>(), dims_of(shape), q_weight.as<float>(), k_weight.as<float>(),
                       count_of(qkv.rows), eps, stream_);
}

void CudaBackend::rope_and_store(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                                 const Tensor& sin, KvCache& cache, int64_t layer) {
  check_rope(qkv, shape, cos, sin, cache, layer);
  linears_->chain.flush();
  cuda::launch_rope_store(qkv.as<float>(), dims_of(shape), step_.view(), cos.as<float>(),
                          sin.as<float>(), view_of(cache, layer), stream_);
}

void CudaBackend::attention(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                            int64_t layer, Tensor& out) {
  check_attention(qkv, shape, cache, layer, out);
  attend(qkv, shape, cache, layer, nullptr, nullptr, out);
}

void CudaBackend::rope_and_attend(Tensor& qkv, const AttentionShape& shape, const Tensor& cos,
                                  const Tensor& sin, KvCache& cache, int64_t layer, Tensor& out) {
  const AttentionDims dims = dims_of(shape);
  const cuda::CacheType type = type_of(cache.spec);
  const bool rotates = !attends_plainly(dims, type) || cuda::attention_rotates(dims, type);
  if (!step_.decodes() || !rotates) {
    return HostBackend::rope_and_attend(qkv, shape, cos, sin, cache, layer, out);
  }
  check_rope(qkv, shape, cos, sin, cache, layer);
  check_attention(qkv, shape, cache, layer, out);
  attend(qkv, shape, cache, layer, cos.as<float>(), sin.as<float>(), out);
}

// cos, sin: null if q has been rotated, and k and v stored.
void CudaBackend::attend(const Tensor& qkv, const AttentionShape& shape, const KvCache& cache,
                         int64_t layer, const float* cos, const float* sin, Tensor& out) {
  linears_->chain.flush();
  cuda::AttentionLaunch a;
  a.cos = cos;
  a.sin = sin;
  a.dims = dims_of(shape);
  a.score_scale = static_cast<float>(std::numbers::log2e / std::sqrt(double(shape.head_dim)));
  a.step = step_.view();
  a.cache = view_of(cache, layer);
  a.pages = attention_pages();
  a.qkv = qkv.as<float>();
  a.out = out.as<float>();
  a.arrivals = arrivals(qkv.rows * shape.heads);
  const bool plain = attends_plainly(a.dims, a.cache.type);
  for (const cuda::Spans which : {cuda::Spans::kShort, cuda::Spans::kLong}) {
    if (plain) {
      attend_plain(a, which);
    } else if (which == cuda::Spans::kShort) {
      attend_few(a);
    } else if (take_blocks(a, which, cuda::tile_queries(a.dims)) > 0) {
      cuda::launch_attention_tile(a, stream_);
    }
  }
}

// Lets `a` attend for some of the step's tokens; returns the key spans of all of its query blocks.
int64_t CudaBackend::take_blocks(cuda::AttentionLaunch& a, cuda::Spans which, int queries) const {
  const cuda::QueryBlocks blocks = step_.query_blocks(which, step_.decodes() ? 1 : queries);
  a.blocks = blocks.blocks;
  a.block_count = blocks.count;
  a.most_queries = blocks.most_queries;
  return blocks.key_spans;
}

void CudaBackend::attend_few(cuda::AttentionLaunch& a) {
  int64_t spans = take_blocks(a, cuda::Spans::kShort, cuda::few_queries(a.dims));
  if (spans == 0) return;
  if (step_.decodes() && a.step.tokens <= kRecordedTokens) {  // enough for later steps as well
    constexpr int kSpanPages = cuda::kAttentionSpan / static_cast<int>(kBlockTokens);
    spans = int64_t{a.block_count} * ((a.pages + kSpanPages - 1) / kSpanPages);
  }
  const int64_t floats = cuda::few_workspace(a, spans);
  // Many short chunks far into their sequences: slower, but needs no workspace.
  if (floats > kMostWorkspace && !a.rotates()) return cuda::launch_attention_tile(a, stream_);
  reserve_workspace(a, floats);
  cuda::launch_attention_few(a, spans, linears_->processors, stream_);
}

void CudaBackend::attend_plain(cuda::AttentionLaunch& a, cuda::Spans which) {
  if (take_blocks(a, which, cuda::attention_queries(a.dims)) == 0) return;
  const int64_t tokens = a.step.tokens;
  a.split_keys = tokens <= kManyTokens ? 64 : tokens <= kMostTokens ? 512 : 0;
  const bool half = a.cache.type == cuda::CacheType::kF16;
  const int64_t shared = cuda::attention_shared_bytes(a.dims, a.most_queries, half);
  LOWBIT_CHECK_KIND(shared <= linears_->shared_bytes, ErrorKind::kUnsupported,
                    "attention with heads of ", a.dims.head_dim, " and a cache of ",
                    half ? "halves" : "floats or codes", " does not fit the GPU's shared memory (",
                    linears_->shared_bytes, " bytes); use --kv-cache-dtype fp16 or --backend cpu");
  reserve_workspace(a, cuda::attention_workspace(a));
  cuda::launch_attention(a, stream_);
}

void CudaBackend::reserve_workspace(cuda::AttentionLaunch& a, int64_t floats) {
  const auto bytes = static_cast<size_t>(floats) * sizeof(float);
  if (bytes > workspace_bytes_) {
    workspace_bytes_ = bytes;
    forget_recordings();
  }
  a.workspace = static_cast<float*>(workspace_.reserve(bytes, stream_));
}

int32_t* CudaBackend::arrivals(int64_t count) {
  if (count > arrival_count_) {
    LOWBIT_CUDA(cudaStreamSynchronize(stream_));
    forget_recordings();
    arrivals_ = cuda::allocate(static_cast<size_t>(count) * sizeof(int32_t), "counters");
    LOWBIT_CUDA(cudaMemsetAsync(arrivals_.get(), 0, static_cast<size_t>(count) * 4, stream_));
    arrival_count_ = count;
  }
  return static_cast<int32_t*>(arrivals_.get());
}

void CudaBackend::silu_mul(const Tensor& gate_up, Tensor& out) {
  check_silu(gate_up, out);
  if (out.size() == 0) return;
  if (out.rows == 1 &&
      linears_->chain.silu_mul(gate_up.as<float>(), count_of(out.cols), out.as<float>())) {
    return;
  }
  linears_->chain.flush();
  cuda::launch_silu_mul(gate_up.as<float>(), count_of(out.rows), count_of(out.cols),
                        out.as<float>(), stream_);
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& out) {
  check_gather(x, rows, out);
  if (rows.empty()) return;
  linears_->chain.flush();
  cuda::launch_gather_rows(x.as<float>(), linears_->device_ids(rows), count_of(out.rows),
                           count_of(out.cols), out.as<float>(), stream_);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  LOWBIT_CHECK_KIND(options.activations != Activations::kInt8, ErrorKind::kUnsupported,
                    "backend cuda multiplies activations of 16 bits or f32; int8 activations need "
                    "--backend cpu");
  return std::make_unique<CudaBackend>(options);
}

double cuda_read_bandwidth() {
  require_device();
  return cuda::measure_memory_read().rate;
}

std::vector<CudaLimit> measure_cuda_limits() {
  require_device();
  return cuda::measure_limits();
}

double cuda_tensor_peak() {
  require_device();
  cudaDeviceProp properties;
  LOWBIT_CUDA(cudaGetDeviceProperties(&properties, 0));
  struct Generation {
    int major, minor;
    double operations, ghz;  // of a multiprocessor in a cycle; boost clock of the data sheet
  };
  constexpr Generation kGenerations[] = {{8, 0, 2048, 1.41}, {9, 0, 4096, 1.83}};
  for (const Generation& g : kGenerations) {
    if (g.major == properties.major && g.minor == properties.minor) {
      return g.operations * g.ghz * properties.multiProcessorCount;
    }
  }
  return 0;
}

std::vector<double> cuda_times(Backend& backend, const std::function<void()>& calls,
                               int repetitions) {
  auto* cuda = dynamic_cast<CudaBackend*>(&backend);
  LOWBIT_CHECK(cuda != nullptr && repetitions > 0, "only backend cuda is timed so");
  return cuda->times(calls, repetitions);
}

CUstream_st* cuda_stream(Backend& backend) {
  auto* cuda = dynamic_cast<CudaBackend*>(&backend);
  LOWBIT_CHECK(cuda != nullptr, "only backend cuda has a stream");
  return cuda->stream();
}

}  // namespace lowbit
