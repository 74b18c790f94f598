#include "lowbit/runtime/cuda/self_check.h"

#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/tensor/dtype.h"

namespace lowbit::cuda {

namespace {

// Numbers without a pattern that a kernel could miss.
class Numbers {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  float between(float low, float high) {
    return low + (high - low) * static_cast<float>(next() & 0xffff) / 65535.f;
  }
  std::vector<float> vector(int64_t count, float low, float high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = between(low, high);
    return values;
  }

 private:
  uint64_t state_ = 1;
};

QTensor some_weight(const QuantScheme& scheme, int64_t rows, int64_t cols, Numbers& numbers) {
  QTensor weight;
  weight.scheme = scheme;
  weight.rows = rows;
  weight.cols = cols;
  std::vector<uint8_t> codes(static_cast<size_t>(rows * weight.row_bytes()));
  if (scheme.dense()) {
    for (size_t i = 0; i < codes.size(); i += 2) {
      const float value = numbers.between(-1, 1);
      const uint16_t bits = scheme.code == Code::kBF16 ? f32_to_bf16(value) : f32_to_f16(value);
      codes[i] = static_cast<uint8_t>(bits);
      codes[i + 1] = static_cast<uint8_t>(bits >> 8);
    }
  } else {  // of floats in 8 bits none is NaN
    const uint8_t mask = scheme.code == Code::kE4M3 ? 0xb7 : 0xff;
    for (uint8_t& code : codes) code = static_cast<uint8_t>(numbers.next() & mask);
    weight.scales.resize(static_cast<size_t>(weight.scale_rows() * weight.groups()));
    for (float& scale : weight.scales) {
      scale = f16_to_f32(f32_to_f16(numbers.between(0.01f, 0.02f)));
    }
  }
  weight.codes = Bytes::own(std::move(codes));
  return weight;
}

Tensor on_device(Backend& backend, const std::vector<float>& values, int64_t rows) {
  Tensor tensor = backend.allocate(rows, static_cast<int64_t>(values.size()) / rows);
  backend.copy_from_host(values, tensor);
  return tensor;
}

std::vector<float> on_host(Backend& backend, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.size()));
  backend.copy_to_host(tensor, values);
  return values;
}

constexpr int64_t kTokens = 300, kHeads = 8, kKvHeads = 2;

// Attention over kTokens tokens in chunks; the rows of all.
class Prompt {
 public:
  Prompt(Backend& backend, int64_t head_dim) : backend_(backend) {
    Numbers numbers;
    shape_ = {kHeads, kKvHeads, head_dim, 0};
    qkv_ = numbers.vector(kTokens * shape_.qkv_cols(), -2, 2);
    std::vector<float> angles = numbers.vector(kTokens * head_dim / 2, -3, 3);
    for (float& angle : angles) angle = std::cos(angle);
    cos_ = on_device(backend, angles, kTokens);
    for (float& angle : angles) angle = std::sqrt(1 - angle * angle);
    sin_ = on_device(backend, angles, kTokens);
    table_.resize(static_cast<size_t>((kTokens + kBlockTokens - 1) / kBlockTokens));
    std::iota(table_.rbegin(), table_.rend(), 0);
  }

  std::vector<float> attend(const std::vector<int64_t>& ends) const {
    const auto blocks = static_cast<int64_t>(table_.size());
    KvCache cache = backend_.make_kv_cache({1, kKvHeads, shape_.head_dim, blocks, DType::kF16});
    std::vector<float> all;
    int64_t first = 0;
    for (const int64_t end : ends) {
      StepBatch batch;
      batch.tokens.resize(static_cast<size_t>(end - first));
      batch.sequences.push_back({0, end - first, first, table_});
      const auto begin = qkv_.begin() + first * shape_.qkv_cols();
      Tensor qkv =
          on_device(backend_, {begin, begin + (end - first) * shape_.qkv_cols()}, end - first);
      Tensor out = backend_.allocate(end - first, shape_.q_cols());
      backend_.begin_step(batch);
      backend_.rope_and_attend(qkv, shape_, cos_, sin_, cache, 0, out);
      const std::vector<float> rows = on_host(backend_, out);
      all.insert(all.end(), rows.begin(), rows.end());
      first = end;
    }
    return all;
  }

 private:
  Backend& backend_;
  AttentionShape shape_;
  std::vector<float> qkv_;
  Tensor cos_, sin_;
  std::vector<int32_t> table_;
};

bool close(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return difference <= 1e-5 * size;
}

}  // namespace

bool products_agree(Backend& backend, const std::function<void(bool)>& choose) {
  constexpr int64_t kRows = 1000, kCols = 640;
  Numbers numbers;
  try {
    for (const QuantScheme& scheme : {int_scheme(4, 128), int_scheme(8, 128), fp8_scheme(1, 128),
                                      dense_scheme(Code::kF16), dense_scheme(Code::kBF16)}) {
      std::vector<LinearWeight> parts;
      parts.push_back({"self check", some_weight(scheme, kRows, kCols, numbers), {}});
      const std::unique_ptr<Linear> linear = backend.make_linear(std::move(parts));
      for (const int64_t tokens : {12, 30, 64, 1100}) {
        const Tensor x = on_device(backend, numbers.vector(tokens * kCols, -4, 4), tokens);
        std::vector<float> results[2];
        for (const bool wgmma : {false, true}) {
          choose(wgmma);
          Tensor y = backend.allocate(tokens, kRows);
          linear->forward(x, y);
          results[wgmma] = on_host(backend, y);
        }
        if (results[0] != results[1]) return false;
      }
    }
  } catch (const Error&) {
    return false;
  }
  return true;
}

bool rounded_products_agree(Backend& backend, const std::function<void(bool)>& choose) {
  constexpr int64_t kRows = 700, kCols = 1216, kMany = 600;
  Numbers numbers;
  bool agree = true;
  try {
    for (QuantScheme scheme : {int_scheme(8, kCols), int_scheme(4, kCols), int_scheme(4, 128),
                               int_scheme(8, 128), fp8_scheme(1, kCols), fp8_scheme(1, 128)}) {
      scheme.input_bits = 8;
      LinearWeight weight{"self check", some_weight(scheme, kRows, kCols, numbers), {}};
      if (scheme.group_size == kCols) {
        auto outliers = std::make_shared<OutlierColumns>();
        for (int32_t i = 0; i < 90; ++i) outliers->columns.push_back(i * 13 + 5);
        outliers->weight = some_weight(dense_scheme(Code::kF16), kRows, 90, numbers);
        weight.weight.outliers = outliers;
      }
      const std::vector<float> inputs = numbers.vector(kMany * kCols, -4, 4);
      std::vector<float> results[2];
      for (const bool rounded : {false, true}) {
        choose(rounded);
        const std::unique_ptr<Linear> linear = backend.make_linear({weight});
        const auto multiply = [&](int64_t tokens) {
          const std::vector<float> some(inputs.begin(), inputs.begin() + tokens * kCols);
          Tensor y = backend.allocate(tokens, kRows);
          linear->forward(on_device(backend, some, tokens), y);
          return on_host(backend, y);
        };
        const std::vector<float>& whole = results[rounded] = multiply(kMany);
        for (const int64_t tokens : {1, 16, 50, 100, 250}) {
          const std::vector<float> some = multiply(rounded ? tokens : 1);
          agree = agree && std::equal(some.begin(), some.end(), whole.begin());
        }
      }
      agree = agree && close(results[true], results[false]);
    }
  } catch (const Error&) {
    agree = false;
  }
  choose(agree);
  return agree;
}

bool attention_agrees(Backend& backend, const std::function<void(bool)>& choose) {
  try {
    for (const int64_t head_dim : {64, 128}) {
      const Prompt prompt(backend, head_dim);
      choose(true);
      const std::vector<float> plain = prompt.attend({kTokens});
      choose(false);
      const std::vector<float> whole = prompt.attend({kTokens});
      const std::vector<float> parts = prompt.attend({130, 289, 299, kTokens});
      if (whole != parts || !close(whole, plain)) return false;
    }
  } catch (const Error&) {
    return false;
  }
  return true;
}

}  // namespace lowbit::cuda
