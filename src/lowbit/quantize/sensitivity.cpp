#include "lowbit/quantize/sensitivity.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/base/vector_math.h"
#include "lowbit/quantize/calibrated_blocks.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/hidden_states.h"
#include "lowbit/quantize/parallel_copy.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/quantize/rms_norm.h"
#include "lowbit/quantize/scale_search.h"
#include "lowbit/runtime/cpu/fit_kernels.h"
#include "lowbit/runtime/cpu/gemm.h"

namespace lowbit {

namespace {

// splitmix64 of a place in the data, as a number in [0, 1).
double random_at(uint64_t seed, int64_t window, int64_t token) {
  uint64_t z = seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(window) * 0xd1342543de82ef95u +
               static_cast<uint64_t>(token);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Final norm and head, and the slopes of -log p of labels drawn from p.
class SampledLoss {
 public:
  SampledLoss(const Checkpoint& checkpoint, const ModelConfig& config, uint64_t seed,
              ThreadPool& pool)
      : norm_(checkpoint.load_vector("model.norm.weight", config.hidden_size)),
        eps_(static_cast<float>(config.rms_norm_eps)),
        hidden_(config.hidden_size),
        vocab_(config.vocab_size),
        seed_(seed),
        pool_(pool),
        gemm_(&pool) {
    const std::string module = config.tie_word_embeddings ? "" : "lm_head";
    const LinearWeight head = module.empty() ? load_embedding(checkpoint, config)
                                             : checkpoint.load_linear(module, vocab_, hidden_);
    head_ = dequantize(head.weight);
    checkpoint.release(head.name);
  }

  // dx: of the sum over the window's tokens. x, dx: [tokens][hidden]
  void differentiate(int64_t window, std::span<const float> x, std::span<float> dx) {
    const int64_t tokens = static_cast<int64_t>(x.size()) / hidden_;
    normed_.resize(x.size());
    slopes_.resize(x.size());
    logits_.resize(static_cast<size_t>(tokens * vocab_));
    pool_.parallel_for(tokens, [&](int64_t t, int) {
      rms_norm(x.data() + t * hidden_, norm_, eps_, normed_.data() + t * hidden_);
    });
    gemm_.multiply(tokens, vocab_, hidden_, cpu::rows_of(normed_.data(), hidden_),
                   cpu::transposed(head_.data(), hidden_), logits_.data(), vocab_);
    pool_.parallel_for(tokens, [&](int64_t t, int) {
      float* p = logits_.data() + t * vocab_;
      cpu::fit_kernels().softmax(p, vocab_, 1.f);
      p[draw(p, random_at(seed_, window, t))] -= 1.f;
    });
    gemm_.multiply(tokens, hidden_, vocab_, cpu::rows_of(logits_.data(), vocab_),
                   cpu::rows_of(head_.data(), hidden_), slopes_.data(), hidden_);
    pool_.parallel_for(tokens, [&](int64_t t, int) {
      const int64_t at = t * hidden_;
      rms_norm_backward(x.data() + at, norm_, eps_, slopes_.data() + at, dx.data() + at, false);
    });
  }

 private:
  int64_t draw(const float* p, double at) const {
    double sum = 0;
    for (int64_t i = 0; i < vocab_; ++i) {
      sum += p[i];
      if (sum > at) return i;
    }
    return std::max_element(p, p + vocab_) - p;  // the sum of p fell short of 1
  }

  std::vector<float> norm_, head_;
  float eps_;
  int64_t hidden_, vocab_;
  uint64_t seed_;
  ThreadPool& pool_;
  cpu::Gemm gemm_;
  std::vector<float> normed_, logits_, slopes_;
};

// The first tokens of some windows.
CalibrationData excerpt(const CalibrationData& data, const SensitivityOptions& options) {
  const auto all = static_cast<int64_t>(data.windows.size());
  LOWBIT_CHECK(all > 0, "sensitivity needs calibration data");
  CalibrationData result;
  const int64_t count = std::min(options.windows, all);
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<int32_t>& window = data.windows[static_cast<size_t>(i * all / count)];
    const int64_t tokens = std::min<int64_t>(options.tokens, static_cast<int64_t>(window.size()));
    result.windows.emplace_back(window.begin(), window.begin() + tokens);
  }
  return result;
}

class Passes {
 public:
  Passes(const Checkpoint& checkpoint, const ModelConfig& config, const CalibrationData& data,
         const SensitivityOptions& options, ThreadPool& pool)
      : checkpoint_(checkpoint),
        config_(config),
        options_(options),
        pool_(pool),
        windows_(static_cast<int64_t>(data.windows.size())),
        tokens_(static_cast<int64_t>(data.windows.front().size())),
        rope_(std::make_shared<RopeTables>(rope_tables(config.rope, config.head_dim, tokens_))) {
    const int64_t sets = config.num_hidden_layers + 2;
    spill_ = sets * windows_ * tokens_ * config.hidden_size * 4 > options.memory_bytes;
    for (int64_t b = 0; b <= config.num_hidden_layers; ++b) states_.push_back(make_states(b));
    slopes_ = make_states(config.num_hidden_layers + 1);
    embed_samples(checkpoint, config, data, {states_[0].get()}, pool);
  }

  void forward(int64_t index) {
    DecoderBlock block(load_block_weights(checkpoint_, config_, index), rope_, pool_);
    std::vector<float> y(states_[0]->sample(0).size());
    for (int64_t w = 0; w < windows_; ++w) {
      block.forward({1, tokens_}, states_[index]->sample(w), trace_, y);
      parallel_copy(pool_, y, states_[index + 1]->sample(w));
    }
  }

  void differentiate_loss() {
    SampledLoss loss(checkpoint_, config_, options_.seed, pool_);
    for (int64_t w = 0; w < windows_; ++w) {
      loss.differentiate(w, states_.back()->sample(w), slopes_->sample(w));
    }
  }

  void backward(int64_t index, const SensitivityVisitor& visit) {
    DecoderBlock block(load_block_weights(checkpoint_, config_, index), rope_, pool_);
    std::vector<float> y(states_[0]->sample(0).size()), dx(y.size());
    BlockGradients gradients;
    BlockFisher fisher;
    for (size_t n = 0; n < fisher.size(); ++n) {
      fisher[n].resize(block.weights().linears[n].weight.size());
      gradients[n].resize(fisher[n].size());
    }
    for (int64_t w = 0; w < windows_; ++w) {
      for (std::vector<float>& gradient : gradients) {
        std::fill(gradient.begin(), gradient.end(), 0.f);
      }
      const std::span<const float> x = states_[index]->sample(w);
      block.forward({1, tokens_}, x, trace_, y);
      block.backward(x, trace_, slopes_->sample(w), gradients, dx);
      parallel_copy(pool_, dx, slopes_->sample(w));
      add_squares(block.weights(), gradients, fisher);
    }
    visit(index, block.weights(), fisher);
  }

 private:
  std::unique_ptr<HiddenStates> make_states(int64_t index) const {
    const fs::path file = options_.spill / concat("sensitivity-", index, ".part");
    return std::make_unique<HiddenStates>(windows_, tokens_, config_.hidden_size,
                                          spill_ ? file : fs::path());
  }

  void add_squares(const BlockWeights& block, const BlockGradients& gradients,
                   BlockFisher& fisher) {
    const float share = 1.f / static_cast<float>(windows_ * tokens_);
    for (size_t n = 0; n < fisher.size(); ++n) {
      const int64_t cols = block.linears[n].cols;
      pool_.parallel_for(block.linears[n].rows, [&](int64_t row, int) {
        const float* g = gradients[n].data() + row * cols;
        float* sums = fisher[n].data() + row * cols;
        for (int64_t k = 0; k < cols; ++k) sums[k] += share * g[k] * g[k];
      });
    }
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const SensitivityOptions& options_;
  ThreadPool& pool_;
  int64_t windows_, tokens_;
  bool spill_ = false;
  std::shared_ptr<const RopeTables> rope_;
  std::vector<std::unique_ptr<HiddenStates>> states_;  // entering each block, leaving the last
  std::unique_ptr<HiddenStates> slopes_;               // of what leaves the block in hand
  BlockTrace trace_;
};

}  // namespace

void measure_sensitivity(const Checkpoint& checkpoint, const ModelConfig& config,
                         const CalibrationData& data, const SensitivityOptions& options,
                         ThreadPool& pool, const SensitivityVisitor& visit,
                         const std::function<void(double done)>& progress) {
  const CalibrationData windows = excerpt(data, options);
  Passes passes(checkpoint, config, windows, options, pool);
  const int64_t blocks = config.num_hidden_layers;
  // The way back costs about four times the way there.
  const double total = 5.0 * static_cast<double>(blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    passes.forward(b);
    progress(static_cast<double>(b + 1) / total);
  }
  passes.differentiate_loss();
  for (int64_t b = blocks; b-- > 0;) {
    passes.backward(b, visit);
    progress(static_cast<double>(blocks + 4 * (blocks - b)) / total);
  }
}

namespace {

std::vector<float> column_sums(const BlockWeights::Linear& linear, const std::vector<float>& fisher,
                               ThreadPool& pool) {
  const int64_t cols = linear.cols;
  std::vector<float> sums(static_cast<size_t>(cols));
  pool.parallel_for((cols + 31) / 32, [&](int64_t share, int) {
    for (int64_t row = 0; row < linear.rows; ++row) {
      for (int64_t k = share * 32; k < std::min(cols, share * 32 + 32); ++k) {
        sums[k] += fisher[row * cols + k];
      }
    }
  });
  return sums;
}

// Rows that stand for all: {row, share of the loss of all}. What a row may lose at most, sum F w^2,
// ranges over orders of magnitude: the largest stand for themselves, each fourth of the others for
// its neighbours in that order.
std::vector<std::pair<int64_t, double>> sample_rows(const BlockWeights::Linear& linear,
                                                    const std::vector<float>& fisher,
                                                    ThreadPool& pool) {
  constexpr int64_t kLargest = 64, kStep = 4;
  const int64_t cols = linear.cols;
  std::vector<double> mass(static_cast<size_t>(linear.rows));
  pool.parallel_for(linear.rows, [&](int64_t row, int) {
    const float *w = linear.weight.data() + row * cols, *f = fisher.data() + row * cols;
    check_finite(linear.name, {w, static_cast<size_t>(cols)}, row);
    mass[row] = sum_of(cols, [&](int64_t k) { return f[k] * w[k] * w[k]; });
  });
  std::vector<int64_t> order(mass.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return mass[a] > mass[b]; });
  std::vector<std::pair<int64_t, double>> rows;
  double all = 0, sampled = 0;
  for (int64_t i = 0; i < linear.rows; ++i) {
    const int64_t row = order[i];
    if (i < kLargest) {
      rows.emplace_back(row, 1);
      continue;
    }
    all += mass[row];
    if ((i - kLargest) % kStep != kStep / 2) continue;
    sampled += mass[row];
    rows.emplace_back(row, 0);
  }
  for (auto& [row, share] : rows) {
    if (share == 0) share = sampled > 0 ? all / sampled : 0;
  }
  return rows;
}

}  // namespace

std::vector<double> rounding_losses(const BlockWeights::Linear& linear,
                                    const std::vector<float>& fisher,
                                    const std::vector<QuantScheme>& schemes, ThreadPool& pool) {
  const int64_t cols = linear.cols;
  LOWBIT_CHECK(fisher.size() == linear.weight.size(), linear.name, ": sensitivities of ",
               fisher.size(), " weights for ", linear.rows, " x ", cols);
  const std::vector<float> importance = column_sums(linear, fisher, pool);
  const auto rows = sample_rows(linear, fisher, pool);
  std::vector<double> totals;
  for (const QuantScheme& scheme : schemes) {
    const int64_t size = scheme.group_size;
    LOWBIT_CHECK(scheme.code == Code::kInt && size > 0 && cols % size == 0, linear.name,
                 ": no loss of ", name_of(scheme), " for ", linear.rows, " x ", cols);
    std::vector<double> losses(rows.size());
    pool.parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t i, int) {
      const auto [row, share] = rows[i];
      const float *w = linear.weight.data() + row * cols, *f = fisher.data() + row * cols;
      for (int64_t first = 0; first < cols; first += size) {
        const Grid grid = searched_grid({w + first, static_cast<size_t>(size)},
                                        std::span(importance).subspan(first, size), scheme.bits,
                                        scheme.zero, {linear.name, row});
        const auto zero = static_cast<float>(grid.zero);
        losses[i] += share * rounding_error(w + first, f + first, size, grid.scale, -zero,
                                            static_cast<float>((1 << scheme.bits) - 1) - zero);
      }
    });
    totals.push_back(0.5 * std::accumulate(losses.begin(), losses.end(), 0.0));
  }
  return totals;
}

}  // namespace lowbit
