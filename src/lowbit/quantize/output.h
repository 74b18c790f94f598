// Output: one kind of checkpoint to write. It turns each weight into tensors of a part, and the
// finished parts into OUT.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/base/thread_pool.h"
#include "lowbit/checkpoint/checkpoint.h"
#include "lowbit/model/config.h"
#include "lowbit/quantize/part.h"
#include "lowbit/quantize/plan.h"
#include "lowbit/quantize/row_encoder.h"

namespace lowbit {

class QuantizeDevice;  // quantize_device.h

// What every output needs to know of a run. The references outlive it.
struct OutputJob {
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const Plan& plan;
  const QuantizeOptions& options;
  ThreadPool& pool;
  QuantizeDevice* device = nullptr;  // null: methods compute on the host
};

// A finished part and its file.
struct PartFile {
  Part part;
  fs::path path;
};

class Output {
 public:
  virtual ~Output() = default;

  // Throws kInvalidArgument if some weight of the plan cannot be held, before any work is done.
  virtual void check() const = 0;
  // What the user should know of how it holds the plan's weights.
  virtual std::vector<std::string> notices() const { return {}; }
  virtual void write_vector(const PlanItem& item, const std::vector<float>& values,
                            PartWriter& part) = 0;
  virtual void write_matrix(const PlanItem& item, const LinearWeight& weight, PartWriter& part) = 0;

  // For methods that calibrate. Throw kUnsupported where the output quantizes by itself.
  // What is to be made of a linear, for_shape() applied; dense if it is skipped.
  virtual QuantScheme scheme(const PlanItem& item) const;
  virtual void write_quantized(const PlanItem& item, const QTensor& weight,
                               const std::vector<float>& bias, PartWriter& part);
  // A finished part's tensors, as a reader of the result will see them.
  virtual std::unique_ptr<Checkpoint> open_part(const PartFile& file) const;

  // Makes the files of OUT at `result` (a folder, or a file) and syncs them.
  virtual void assemble(const std::vector<PartFile>& parts, const fs::path& result) = 0;
};

// By options.format. Throws kInvalidArgument listing the formats there are.
std::unique_ptr<Output> make_output(const OutputJob& job, const fs::path& out);
std::unique_ptr<Output> make_hf_output(const OutputJob& job);
std::unique_ptr<Output> make_gguf_output(const OutputJob& job, bool single_file);

// "gguf:q4_0" is {"gguf", "q4_0"}.
struct FormatName {
  std::string name, type;
};
FormatName parse_format(const std::string& format);

// Writes a tensor of rows encoded one by one, a few MiB at a time. Row r of the tensor is row
// source_row(r) of `weight`. Throws kInvalidArgument naming `name` and the place of a weight that
// is not finite, or the row that overflowed the type.
void write_rows(const std::string& tensor, const QTensor& weight, const std::string& name,
                const RowEncoder& encoder, const std::function<int64_t(int64_t)>& source_row,
                ThreadPool& pool, PartWriter& part);
int64_t same_row(int64_t row);  // no permutation

// README.md: what the checkpoint is, how it was made and how to load it.
std::string model_card(const OutputJob& job, const std::string& format);

}  // namespace lowbit
