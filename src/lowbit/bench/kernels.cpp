#include "lowbit/bench/kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lowbit/base/check.h"
#include "lowbit/bench/noise.h"
#include "lowbit/bench/random_model.h"

namespace lowbit {

namespace {

struct BenchCase {
  const char* model;
  LinearShape shape;
  QuantScheme scheme;

  std::string name() const {
    return concat(model, *model == 0 ? "" : " ", shape.name, " ", name_of(scheme));
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
  const std::vector<QuantScheme> schemes = {
      int_scheme(4, 32),                 // Q4_0
      int_scheme(4, 32, Zero::kOffset),  // Q4_1
      int_scheme(4, 64),
      int_scheme(4, 128, Zero::kInt),  // GPTQ, AWQ
      int_scheme(8, 32),               // Q8_0
      int_scheme(6, 16),               // Q6_K
      {Code::kIq4Nl, 4, 1, 32, Zero::kNone},
      dense_scheme(Code::kF16),
      dense_scheme(Code::kBF16),
  };
  std::vector<BenchCase> cases;
  for (const auto& [model, shapes] : models) {
    for (const LinearShape& shape : shapes) {
      for (const QuantScheme& scheme : schemes) {
        if (scheme.group_size == 128 && shape.cols % 128 != 0) continue;
        cases.push_back({model, shape, scheme});
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

 private:
  std::vector<std::unique_ptr<Linear>> copies_;
  size_t next_ = 0;
};

// Relative to the product with the weights as dequantize() gives them; some rows, some tokens.
double error_of(const QTensor& weight, const Tensor& x, const Tensor& y) {
  const int64_t step = std::max<int64_t>(1, weight.rows / 64);
  std::vector<float> row(static_cast<size_t>(weight.cols));
  double difference = 0, norm = 0;
  for (int64_t n = 0; n < weight.rows; n += step) {
    dequantize_row(weight, n, row.data());
    for (int64_t token = 0; token < std::min<int64_t>(4, x.rows); ++token) {
      double expected = 0;
      for (int64_t k = 0; k < weight.cols; ++k) {
        expected += static_cast<double>(row[k]) * static_cast<double>(x.row(token)[k]);
      }
      difference += std::pow(static_cast<double>(y.row(token)[n]) - expected, 2);
      norm += expected * expected;
    }
  }
  return std::sqrt(difference / norm);
}

std::vector<double> time_of(ColdLinear& linear, const Tensor& x, Tensor& y, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  linear.next().forward(x, y);
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point one = Clock::now();
    linear.next().forward(x, y);
    times.push_back(since(one));
  } while (since(start) < seconds || times.size() < 5);
  std::sort(times.begin(), times.end());
  return times;
}

void measure_case(Backend& backend, const Machine& machine, const BenchCase& bench,
                  const KernelBenchOptions& options,
                  const std::function<void(const KernelRow&)>& done) {
  const QTensor weight =
      random_weight(bench.scheme, bench.shape.rows, bench.shape.cols,
                    static_cast<uint64_t>(bench.shape.rows * 31 + bench.shape.cols));
  // As roofline's reading of DRAM, which is at least four L3s where those are small.
  const int64_t cold = machine.reads.empty() ? int64_t{64} << 20 : machine.reads[0].bytes / 4;
  ColdLinear linear(backend, weight, cold);
  Noise noise(7);
  for (const int64_t tokens : options.tokens) {
    Tensor x = backend.allocate(tokens, weight.cols), y = backend.allocate(tokens, weight.rows);
    for (int64_t i = 0; i < x.size(); ++i) {
      x.as<float>()[i] = noise.uniform() + noise.uniform() + noise.uniform() - 1.5f;
    }
    const std::vector<double> times = time_of(linear, x, y, options.seconds);
    KernelRow row{bench.name(), linear.first().kernel(),
                  weight.rows,  weight.cols,
                  tokens,       static_cast<double>(linear.first().bytes())};
    row.seconds = times[times.size() / 2];
    row.fastest = times[0];
    const double operations = row.gop_s() * row.seconds;
    const double floor = std::max(operations / peak_of(machine, row.kernel),
                                  row.weight_bytes / 1e9 / machine.dram());
    row.share = floor / row.seconds;
    row.error = error_of(weight, x, y);
    done(row);
  }
}

}  // namespace

double peak_of(const Machine& machine, const std::string& kernel) {
  const auto has = [&](const char* part) { return kernel.find(part) != std::string::npos; };
  if (!has("_int8")) return machine.peak("fp32 FMA (AVX2)");
  return machine.peak(has("_amx")       ? "int8 tdpbssd"
                      : has("_avx512")  ? "int8 vpdpbusd (AVX-512"
                      : has("_avxvnni") ? "int8 vpdpbusd (AVX-VNNI"
                                        : "int8 vpmaddubsw");
}

KernelRow measure_layer(Backend& backend, const Machine& machine, const LinearShape& shape,
                        const QuantScheme& scheme, int64_t tokens, double seconds) {
  KernelRow result;
  measure_case(backend, machine, {"", shape, scheme}, {"", {tokens}, seconds},
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
