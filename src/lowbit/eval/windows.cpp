#include "lowbit/eval/windows.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowbit/base/check.h"
#include "lowbit/eval/log_softmax.h"
#include "lowbit/tokenizer/windows.h"

namespace lowbit {

namespace {

std::optional<int32_t> keep_token(const Tokenizer&) { return std::nullopt; }

// The tokenizer adds BOS if it gives one for an empty text.
std::optional<int32_t> bos_if_added(const Tokenizer& tokenizer) {
  const std::vector<int32_t> added = tokenizer.encode("");
  const std::optional<int32_t> bos = tokenizer.bos_id();
  return bos && !added.empty() && added.front() == *bos ? bos : std::nullopt;
}

std::optional<int32_t> bos_always(const Tokenizer& tokenizer) {
  constexpr int32_t kWithoutBos = 11;  // what MixQ's evalppl puts where there is none
  return tokenizer.bos_id().value_or(kWithoutBos);
}

constexpr Protocol kProtocols[] = {
    {"hf", 2048, 1, true, false, [](int64_t) -> int64_t { return 0; }, keep_token},
    {"llama.cpp", 512, 2, false, false, [](int64_t context) { return context / 2; }, bos_if_added},
    {"mixq", 512, 1, true, true,
     [](int64_t context) { return std::min<int64_t>(512, context / 2); }, bos_always},
};

}  // namespace

const Protocol& find_protocol(const std::string& name) {
  std::string names;
  for (const Protocol& protocol : kProtocols) {
    if (name == protocol.name) return protocol;
    names += concat(names.empty() ? "" : ", ", protocol.name);
  }
  fail(ErrorKind::kInvalidArgument, "unknown perplexity protocol \"", name, "\"; there are ",
       names);
}

std::vector<std::string> protocol_names() {
  std::vector<std::string> names;
  for (const Protocol& protocol : kProtocols) names.emplace_back(protocol.name);
  return names;
}

Windows make_windows(const Tokenizer& tokenizer, const std::string& text,
                     const WindowOptions& options, int64_t max_context) {
  const Protocol& protocol = find_protocol(options.protocol);
  Windows windows;
  windows.context = options.context > 0 ? options.context : protocol.context;
  LOWBIT_CHECK(options.context >= 0 && windows.context >= 4 && windows.context <= max_context,
               "a window of ", options.context, " tokens; expected 4 to the model's context of ",
               max_context);
  windows.first_scored = protocol.first_scored(windows.context);
  windows.ids = tokenizer.encode(text, {.parse_special = protocol.parse_special});
  windows.count = count_windows(windows.ids, windows.context);
  LOWBIT_CHECK(windows.count >= protocol.windows_needed, "the text has ", windows.ids.size(),
               " tokens; protocol ", protocol.name, " needs at least ",
               protocol.windows_needed * windows.context);
  if (options.chunks >= 0) windows.count = std::min(windows.count, options.chunks);
  LOWBIT_CHECK(windows.count > 0, "chunks must be positive, or -1 for all");
  windows.ids.resize(static_cast<size_t>(windows.count * windows.context));
  if (const std::optional<int32_t> first = protocol.first_token(tokenizer)) {
    for (size_t i = 0; i < windows.ids.size(); i += static_cast<size_t>(windows.context)) {
      windows.ids[i] = *first;
    }
  }
  return windows;
}

WindowRunner::WindowRunner(Model& model, int64_t context, DType kv_dtype)
    : model_(model),
      cache_(model.make_kv_cache((context + kBlockTokens - 1) / kBlockTokens, kv_dtype)) {
  block_table_.resize(static_cast<size_t>(cache_.spec.blocks));
  std::iota(block_table_.begin(), block_table_.end(), 0);
}

int64_t WindowRunner::run(const Windows& windows, int64_t index, int64_t begin, int64_t end) {
  const int32_t* window = windows.window(index);
  StepBatch batch;
  batch.tokens.assign(window + begin, window + end);
  batch.sequences = {{0, end - begin, begin, block_table_}};
  const int64_t last = std::min(end, windows.context - 1);
  for (int64_t i = std::max(begin, windows.first_scored); i < last; ++i) {
    batch.logit_rows.push_back(static_cast<int32_t>(i - begin));
  }
  hidden_ = model_.hidden_states(batch, cache_);
  return hidden_.rows;
}

Tensor WindowRunner::device_logits(int64_t row, int64_t count) {
  Tensor part = hidden_.first(row + count);
  part.data = static_cast<char*>(part.data) + row * part.cols * size_of(part.dtype);
  part.rows = count;
  return model_.logits(part);
}

const float* WindowRunner::logits(int64_t row, int64_t count) {
  return on_host(device_logits(row, count));
}

const float* WindowRunner::on_host(const Tensor& logits) {
  host_.resize(static_cast<size_t>(logits.size()));
  model_.backend().copy_to_host(logits, host_);
  return host_.data();
}

std::vector<double> WindowRunner::negative_log_likelihoods(int64_t row,
                                                           std::span<const int32_t> targets,
                                                           ThreadPool& pool) {
  const auto count = static_cast<int64_t>(targets.size());
  const int64_t vocab = model_.config().vocab_size;
  std::vector<double> values(targets.size());
  const Tensor logits = device_logits(row, count);
  std::vector<LogitQuery> queries(targets.size(), {.kind = LogitQuery::Kind::kToken});
  for (size_t i = 0; i < targets.size(); ++i) queries[i].token = targets[i];
  std::vector<LogitAnswer> answers(targets.size());
  const bool answered =
      model_.backend().answer(logits, queries, answers) &&
      std::all_of(answers.begin(), answers.end(), [](const LogitAnswer& a) { return a.known; });
  if (answered) {
    for (size_t i = 0; i < targets.size(); ++i) {
      const LogitAnswer& a = answers[i];
      values[i] = std::log(a.total) + static_cast<double>(a.bound) - a.top.front().first;
    }
    return values;
  }
  const float* rows = on_host(logits);
  pool.parallel_for(count, [&](int64_t i, int) {
    const std::span<const float> all(rows + i * vocab, static_cast<size_t>(vocab));
    values[static_cast<size_t>(i)] = negative_log_likelihood(all, targets[static_cast<size_t>(i)]);
  });
  return values;
}

}  // namespace lowbit
