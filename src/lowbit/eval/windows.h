// Protocols: how a text is cut into windows, and which predictions of a window count.
//   hf         windows of ctx tokens without overlap, no BOS inserted, every position scored
//   llama.cpp  chunks of ctx tokens, first replaced by BOS if the tokenizer adds one, second half
//              scored
//   mixq       as llama.cpp, BOS always, scored from min(512, ctx / 2) on, probabilities rounded
//              through fp16
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/model/model.h"
#include "lowbit/tokenizer/tokenizer.h"

namespace lowbit {

struct Protocol {
  const char* name;
  int64_t context;                           // default
  int64_t windows_needed;                    // a shorter text is refused
  bool parse_special;                        // "<s>" in the text is the token
  bool half_precision;                       // probabilities pass through fp16
  int64_t (*first_scored)(int64_t context);  // first position whose prediction counts
  std::optional<int32_t> (*first_token)(const Tokenizer& tokenizer);  // replaces each window's
};
// Throws kInvalidArgument listing the names there are.
const Protocol& find_protocol(const std::string& name);
std::vector<std::string> protocol_names();

// The windows of a text, from its beginning.
struct Windows {
  int64_t context = 0;
  int64_t count = 0;
  int64_t first_scored = 0;
  std::vector<int32_t> ids;  // [count * context], first tokens replaced

  // Position i predicts the token at i + 1, so the last scored one is context - 2.
  int64_t scored() const { return context - 1 - first_scored; }
  const int32_t* window(int64_t index) const { return ids.data() + index * context; }
};

struct WindowOptions {
  std::string protocol = "hf";
  int64_t context = 0;  // 0: 2048 for hf, 512 otherwise
  int64_t chunks = -1;  // -1: all
  DType kv_dtype = DType::kF16;
};

// Throws kInvalidArgument for an unknown protocol, a text shorter than the protocol needs, or a
// window longer than max_context.
Windows make_windows(const Tokenizer& tokenizer, const std::string& text,
                     const WindowOptions& options, int64_t max_context);

// Runs windows through a model, a part at a time, and gives the logits of scored positions.
class WindowRunner {
 public:
  // The model must outlive it.
  WindowRunner(Model& model, int64_t context, DType kv_dtype);

  // Tokens [begin, end) of a window, at most model.max_batch() of them; earlier parts must have
  // been run. Returns how many scored positions lie in them.
  int64_t run(const Windows& windows, int64_t index, int64_t begin, int64_t end);
  // Logits [count][vocab_size] of those positions from the row-th on, in host memory; valid until
  // the next call.
  const float* logits(int64_t row, int64_t count);
  // -log P(targets[i]) of as many positions as there are targets, from the row-th on.
  std::vector<double> negative_log_likelihoods(int64_t row, std::span<const int32_t> targets,
                                               ThreadPool& pool);

 private:
  Tensor device_logits(int64_t row, int64_t count);
  const float* on_host(const Tensor& logits);

  Model& model_;
  KvCache cache_;
  std::vector<int32_t> block_table_;
  Tensor hidden_;
  std::vector<float> host_;
};

// Logits held at once: 64 rows of 128k words are 32 MiB.
constexpr int64_t kLogitRows = 64;

}  // namespace lowbit
