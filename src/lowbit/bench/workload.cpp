#include "lowbit/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/base/limits.h"
#include "lowbit/engine/sampler.h"

namespace lowbit {

namespace {

constexpr int64_t kShortest = 4;  // tokens of a prompt or an answer

struct Turns {
  std::string prompt, answer;
};

const Json* member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string text_of(const Json& object, const char* key) {
  const Json* value = object.is_object() ? member(object, key) : nullptr;
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

Turns turns_of(const Json& entry) {
  if (!entry.is_object()) return {};
  for (const auto& [list, text] : {std::pair("conversations", "value"), {"messages", "content"}}) {
    const Json* turns = member(entry, list);
    if (turns == nullptr || !turns->is_array() || turns->size() < 2) continue;
    return {text_of((*turns)[0], text), text_of((*turns)[1], text)};
  }
  return {text_of(entry, "prompt"), text_of(entry, "completion")};
}

std::vector<Turns> read_turns(const std::string& path) {
  const std::string text = read_file(path, limits::kDatasetBytes);
  std::vector<Turns> all;
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && text[start] == '[') {
    for (const Json& entry : parse_json(text, path)) all.push_back(turns_of(entry));
    return all;
  }
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    ++number;
    if (line.find_first_not_of(" \t\r") != line.npos) {
      all.push_back(turns_of(parse_json(line, concat(path, " line ", number))));
    }
    begin = end + 1;
  }
  return all;
}

// Fisher and Yates's, with the hash that also draws tokens.
std::vector<size_t> shuffled(size_t count, uint64_t seed) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count; i > 1; --i) {
    const double uniform = uniform_at(seed ^ 0x0de7, static_cast<int64_t>(i));
    std::swap(order[i - 1], order[static_cast<size_t>(uniform * static_cast<double>(i))]);
  }
  return order;
}

}  // namespace

std::vector<WorkloadRequest> random_workload(int64_t num_prompts, int64_t input_len,
                                             int64_t output_len, int64_t vocab_size,
                                             uint64_t seed) {
  LOWBIT_CHECK(num_prompts > 0 && input_len > 0 && output_len > 0,
               "num_prompts, input_len and output_len must be positive, not ", num_prompts, ", ",
               input_len, " and ", output_len);
  std::vector<WorkloadRequest> requests(static_cast<size_t>(num_prompts));
  int64_t position = 0;
  for (WorkloadRequest& request : requests) {
    request.output_len = output_len;
    for (int64_t i = 0; i < input_len; ++i) {
      const double uniform = uniform_at(seed, position++);
      request.prompt.push_back(static_cast<int32_t>(uniform * static_cast<double>(vocab_size)));
    }
  }
  return requests;
}

std::vector<WorkloadRequest> read_conversations(const std::string& path, const Tokenizer& tokenizer,
                                                const ConversationOptions& options) {
  const std::vector<Turns> all = read_turns(path);
  std::vector<WorkloadRequest> requests;
  for (const size_t index : shuffled(all.size(), options.seed)) {
    if (static_cast<int64_t>(requests.size()) >= options.num_prompts) break;
    const Turns& turns = all[index];
    WorkloadRequest request;
    request.prompt = tokenizer.encode(turns.prompt);
    request.output_len = options.output_len > 0
                             ? options.output_len
                             : static_cast<int64_t>(tokenizer.encode(turns.answer).size());
    const auto input = static_cast<int64_t>(request.prompt.size());
    const bool fits = input >= kShortest && request.output_len >= kShortest &&
                      input <= options.max_tokens / 2 &&
                      input + request.output_len <= options.max_tokens;
    if (fits) requests.push_back(std::move(request));
  }
  LOWBIT_CHECK(!requests.empty(), path, ": none of its ", all.size(),
               " entries has a prompt and an answer of ", kShortest, " to ", options.max_tokens,
               " tokens");
  return requests;
}

std::vector<double> arrival_times(size_t count, double rate, uint64_t seed) {
  LOWBIT_CHECK(rate >= 0 && std::isfinite(rate),
               "request_rate must be 0 (all at once) or more, not ", rate);
  std::vector<double> times;
  double time = 0;
  for (size_t i = 0; i < count; ++i) {
    times.push_back(time);
    if (rate > 0) time -= std::log(1 - uniform_at(seed ^ 0x5eed, static_cast<int64_t>(i))) / rate;
  }
  return times;
}

}  // namespace lowbit
