#include "lowbit/bench/kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/bench/noise.h"
#include "lowbit/bench/random_model.h"
#include "lowbit/bench/rsr.h"
#include "lowbit/runtime/cuda/cuda_backend.h"

namespace lowbit {

namespace {

struct BenchCase {
  const char* model;
  LinearShape shape;
  std::string format;  // a name for people
  WeightFormat weight;

  std::string name() const {
    return concat(model, *model == 0 ? "" : " ", shape.name, " ", format);
  }
};

std::vector<BenchCase> all_cases() {
  const std::vector<std::pair<const char*, std::vector<LinearShape>>> models = {
      {"smollm2",
       {{"qkv_proj", 960, 576},
        {"o_proj", 576, 576},
        {"gate_up_proj", 3072, 576},
        {"down_proj", 576, 1536},
        {"lm_head", 49152, 576}}},
      {"llama-1b",
       {{"qkv_proj", 3072, 2048},
        {"o_proj", 2048, 2048},
        {"gate_up_proj", 16384, 2048},
        {"down_proj", 2048, 8192}}},
      {"llama-8b",
       {{"qkv_proj", 6144, 4096},
        {"o_proj", 4096, 4096},
        {"gate_up_proj", 28672, 4096},
        {"down_proj", 4096, 14336}}}};
  std::vector<BenchCase> cases;
  for (const auto& [model, shapes] : models) {
    for (const LinearShape& shape : shapes) {
      for (const std::string& name : format_names()) {
        if (name.find("a16") != std::string::npos) continue;  // others under a second name
        const WeightFormat format = format_by_name(name);
        const bool k_quant = format.values == WeightFormat::Values::kMultiples;
        const int64_t group = k_quant ? 256 : std::max<int64_t>(1, format.scheme.group_size);
        if (shape.cols % group == 0) cases.push_back({model, shape, name, format});
      }
    }
  }
  return cases;
}

// The same layer so often that its copies together fit no cache.
class ColdLinear {
 public:
  ColdLinear(Backend& backend, const QTensor& weight, int64_t cold_bytes) {
    int64_t bytes = 0;
    do {
      copies_.push_back(backend.make_linear({{"bench", weight, {}}}));
      bytes += copies_.back()->bytes();
    } while (bytes < cold_bytes);
  }
  const Linear& first() const { return *copies_[0]; }
  const Linear& next() { return *copies_[next_++ % copies_.size()]; }
  size_t count() const { return copies_.size(); }
  void each(const std::function<void(const Linear&)>& use) const {
    for (const auto& copy : copies_) use(*copy);
  }

 private:
  std::vector<std::unique_ptr<Linear>> copies_;
  size_t next_ = 0;
};

// Random inputs, in host memory and the backend's. Many tokens repeat the first ones.
struct RandomInput {
  std::vector<float> values;  // [tokens][cols]
  Tensor tensor;

  RandomInput(Backend& backend, int64_t tokens, int64_t cols)
      : values(static_cast<size_t>(tokens * cols)), tensor(backend.allocate(tokens, cols)) {
    constexpr int64_t kDistinct = 64;
    Noise noise(7);
    const auto distinct = static_cast<size_t>(std::min(tokens, kDistinct) * cols);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = i < distinct ? noise.uniform() + noise.uniform() + noise.uniform() - 1.5f
                               : values[i - distinct];
    }
    backend.copy_from_host(values, tensor);
  }
};

// Relative to the product with the weights as dequantize() gives them; some rows, some tokens.
double error_of(Backend& backend, const QTensor& weight, const std::vector<float>& x,
                const Tensor& y) {
  const int64_t step = std::max<int64_t>(1, weight.rows / 64);
  const Tensor first = y.first(std::min<int64_t>(4, y.rows));
  std::vector<float> products(static_cast<size_t>(first.size()));
  backend.copy_to_host(first, products);
  std::vector<float> row(static_cast<size_t>(weight.cols));
  double difference = 0, norm = 0;
  for (int64_t n = 0; n < weight.rows; n += step) {
    dequantize_row(weight, n, row.data());
    for (int64_t token = 0; token < first.rows; ++token) {
      double expected = 0;
      for (int64_t k = 0; k < weight.cols; ++k) {
        expected += static_cast<double>(row[static_cast<size_t>(k)]) *
                    static_cast<double>(x[static_cast<size_t>(token * weight.cols + k)]);
      }
      const double product = products[static_cast<size_t>(token * weight.rows + n)];
      difference += std::pow(product - expected, 2);
      norm += expected * expected;
    }
  }
  return std::sqrt(difference / norm);
}

std::vector<double> time_of(const std::function<void()>& once, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  once();
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point one = Clock::now();
    once();
    times.push_back(since(one));
  } while (since(start) < seconds || times.size() < 5);
  std::sort(times.begin(), times.end());
  return times;
}

// The same on a GPU: each copy of the layer once, recorded, and that repeated.
std::vector<double> device_times_of(Backend& backend, const ColdLinear& linear, const Tensor& x,
                                    Tensor& y, double seconds) {
  const auto all = [&] { linear.each([&](const Linear& one) { one.forward(x, y); }); };
  all();
  std::vector<double> times = cuda_times(backend, all, 1);
  const double more = std::clamp(seconds / times[0], 5.0, 1000.0);
  times = cuda_times(backend, all, static_cast<int>(more));
  for (double& time : times) time /= static_cast<double>(linear.count());
  return times;
}

// As roofline's reading of DRAM, which is at least four L3s where those are small.
int64_t cold_bytes(const Machine& machine) {
  return machine.reads.empty() ? int64_t{64} << 20 : machine.reads[0].bytes / 4;
}

void finish_row(KernelRow& row, const std::vector<double>& times, const Machine& machine) {
  row.seconds = times[times.size() / 2];
  row.fastest = times[0];
  const double operations = row.gop_s() * row.seconds, peak = peak_of(machine, row.kernel);
  const double floor = std::max(peak > 0 ? operations / peak : 0,  // 0: not known
                                row.weight_bytes / 1e9 / machine.dram());
  row.share = floor / row.seconds;
}

// RSR beside the kernel for ternary weights, for one token.
void measure_rsr(Backend& backend, const Machine& machine, const BenchCase& bench,
                 const QTensor& weight, double seconds,
                 const std::function<void(const KernelRow&)>& done) {
  constexpr int kRows = 4;  // the fastest on most shapes
  ThreadPool pool(backend.threads());
  std::vector<RsrMatrix> copies(1, RsrMatrix(weight, kRows));
  while (copies[0].bytes() * static_cast<int64_t>(copies.size()) < cold_bytes(machine)) {
    copies.push_back(copies[0]);
  }
  const RandomInput x(backend, 1, weight.cols);
  Tensor y = backend.allocate(1, weight.rows);
  size_t next = 0;
  const std::vector<double> times = time_of(
      [&] { copies[next++ % copies.size()].multiply(x.values.data(), y.as<float>(), pool); },
      seconds);
  KernelRow row{bench.name(),
                concat("rsr_k", kRows),
                weight.rows,
                weight.cols,
                1,
                static_cast<double>(copies[0].bytes())};
  finish_row(row, times, machine);
  row.error = error_of(backend, weight, x.values, y);
  done(row);
}

void measure_case(Backend& backend, const Machine& machine, const BenchCase& bench,
                  const KernelBenchOptions& options,
                  const std::function<void(const KernelRow&)>& done) {
  const QTensor weight =
      random_weight(bench.weight, bench.shape.rows, bench.shape.cols,
                    static_cast<uint64_t>(bench.shape.rows * 31 + bench.shape.cols));
  const bool device = backend.name() == "cuda";
  ColdLinear linear(backend, weight, cold_bytes(machine));
  for (const int64_t tokens : options.tokens) {
    const RandomInput x(backend, tokens, weight.cols);
    Tensor y = backend.allocate(tokens, weight.rows);
    const std::vector<double> times =
        device ? device_times_of(backend, linear, x.tensor, y, options.seconds)
               : time_of([&] { linear.next().forward(x.tensor, y); }, options.seconds);
    KernelRow row{bench.name(), linear.first().kernel(),
                  weight.rows,  weight.cols,
                  tokens,       static_cast<double>(linear.first().bytes())};
    finish_row(row, times, machine);
    row.error = error_of(backend, weight, x.values, y);
    done(row);
    if (!device && tokens == 1 && bench.weight.values == WeightFormat::Values::kTernary) {
      measure_rsr(backend, machine, bench, weight, options.seconds, done);
    }
  }
}

}  // namespace

double peak_of(const Machine& machine, const std::string& kernel) {
  const auto has = [&](const char* part) { return kernel.find(part) != std::string::npos; };
  if (has("_cuda")) return machine.peak("16-bit");
  if (!has("_int8")) return machine.peak("fp32 FMA (AVX2)");
  return machine.peak(has("_amx")       ? "int8 tdpbssd"
                      : has("_avx512")  ? "int8 vpdpbusd (AVX-512"
                      : has("_avxvnni") ? "int8 vpdpbusd (AVX-VNNI"
                                        : "int8 vpmaddubsw");
}

Machine measure_cuda_machine(bool all) {
  Machine machine;
  machine.isas = "cuda";
  const double peak = cuda_tensor_peak();
  if (peak > 0) machine.peaks.push_back({"16-bit tensor cores (data sheet)", 0, peak, peak});
  if (!all) {
    const double read = cuda_read_bandwidth();
    machine.reads.push_back({"device memory", int64_t{1} << 30, read, read});
    return machine;
  }
  for (const CudaLimit& limit : measure_cuda_limits()) {
    (limit.bytes > 0 ? machine.reads : machine.peaks)
        .push_back({limit.name, limit.bytes, limit.rate, limit.rate});
  }
  return machine;
}

KernelRow measure_layer(Backend& backend, const Machine& machine, const LinearShape& shape,
                        const QuantScheme& scheme, int64_t tokens, double seconds) {
  KernelRow result;
  measure_case(backend, machine, {"", shape, name_of(scheme), {scheme}}, {"", {tokens}, seconds},
               [&](const KernelRow& row) { result = row; });
  return result;
}

void measure_kernels(Backend& backend, const Machine& machine, const KernelBenchOptions& options,
                     const std::function<void(const KernelRow&)>& done) {
  bool any = false;
  std::string names;
  for (const BenchCase& bench : all_cases()) {
    names += "\n  " + bench.name();
    if (bench.name().find(options.only) == std::string::npos) continue;
    any = true;
    measure_case(backend, machine, bench, options, done);
  }
  LOWBIT_CHECK(any, "no row of the kernel bench is called like \"", options.only,
               "\"; there are:", names);
}

}  // namespace lowbit
