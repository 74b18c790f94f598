#include "lowbit/bench/tokenizer_bench.h"

#include <algorithm>
#include <vector>

#include "lowbit/base/check.h"
#include "lowbit/base/stopwatch.h"

namespace lowbit {

TokenizerBenchResult bench_tokenizer(const Tokenizer& tokenizer, const std::string& text,
                                     int repetitions) {
  LOWBIT_CHECK(repetitions > 0, "tokenizer bench of ", repetitions, " repetitions");
  TokenizerBenchResult result;
  result.tokens = static_cast<int64_t>(tokenizer.encode(text).size());
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const Stopwatch watch;
    tokenizer.encode(text);
    seconds.push_back(watch.seconds());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  result.seconds = seconds[static_cast<size_t>(repetitions / 2)];
  result.mb_s = static_cast<double>(text.size()) / result.seconds / 1e6;
  return result;
}

}  // namespace lowbit
