#include "lowbit/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "lowbit/base/check.h"
#include "lowbit/base/progress.h"
#include "lowbit/base/stopwatch.h"
#include "lowbit/base/thread_pool.h"
#include "lowbit/eval/running_mean.h"

namespace lowbit {

namespace {

// A probability that is no half but 0 would make the whole text infinitely unlikely; it counts as
// the smallest half, 2^-24.
double through_half(double nll) {
  const float probability = f16_to_f32(f32_to_f16(static_cast<float>(std::exp(-nll))));
  return -std::log(std::max(static_cast<double>(probability), 0x1p-24));
}

void add(const std::vector<double>& values, std::span<const int32_t> targets,
         const Protocol& protocol, RunningMean& nlls) {
  for (size_t i = 0; i < values.size(); ++i) {
    LOWBIT_CHECK_KIND(std::isfinite(values[i]), ErrorKind::kCorruptFile, "the model gives token ",
                      targets[i], " a log-probability of ", -values[i],
                      "; its weights are damaged or overflow");
    nlls.add(protocol.half_precision ? through_half(values[i]) : values[i]);
  }
}

std::string running_note(const RunningMean& nlls) {
  std::ostringstream note;
  note << "ppl " << std::fixed << std::setprecision(3) << std::exp(nlls.mean());
  return note.str();
}

}  // namespace

PerplexityResult perplexity(Model& model, const Tokenizer& tokenizer, const std::string& text,
                            const WindowOptions& options) {
  const Protocol& protocol = find_protocol(options.protocol);
  const Windows windows = make_windows(tokenizer, text, options, model.context());
  const int64_t context = windows.context;
  PerplexityResult result;
  result.protocol = protocol.name;
  result.context = context;
  result.chunks = windows.count;

  const Stopwatch watch;
  WindowRunner runner(model, context, options.kv_dtype);
  ThreadPool pool(model.backend().threads());
  Progress progress("perplexity", windows.count * context, "tokens");
  RunningMean all;
  for (int64_t index = 0; index < windows.count; ++index) {
    const RunningMean before = all;
    const int32_t* target = windows.window(index) + windows.first_scored + 1;
    for (int64_t begin = 0; begin < context; begin += model.max_batch()) {
      const int64_t rows =
          runner.run(windows, index, begin, std::min(context, begin + model.max_batch()));
      for (int64_t row = 0; row < rows; row += kLogitRows) {
        const int64_t count = std::min(kLogitRows, rows - row);
        const std::span targets(target, static_cast<size_t>(count));
        add(runner.negative_log_likelihoods(row, targets, pool), targets, protocol, all);
        target += count;
      }
    }
    result.chunk_nll.push_back((all.sum - before.sum) /
                               static_cast<double>(all.count - before.count));
    progress.update((index + 1) * context, running_note(all));
  }
  result.seconds = watch.seconds();
  result.tokens = all.count;
  result.ppl = std::exp(all.mean());
  result.stderr_ppl = result.ppl * all.standard_error();
  result.tok_s = static_cast<double>(windows.count * context) / result.seconds;
  return result;
}

}  // namespace lowbit
