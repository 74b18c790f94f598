// Post-processors of tokenizer.json, for one sequence: the ids put before and after its own.
#pragma once

#include <string>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

class PostProcessor {
 public:
  // `component` is tokenizer.json's "post_processor" (null: none): TemplateProcessing, ByteLevel
  // (which only moves offsets), BertProcessing, RobertaProcessing or a Sequence of them. Throws
  // kUnsupported naming another.
  PostProcessor(const Json& component, const std::string& origin);

  const std::vector<int32_t>& prefix() const { return prefix_; }
  const std::vector<int32_t>& suffix() const { return suffix_; }
  // Throws kCorruptFile if an id is not below vocab_size.
  void check_ids(int32_t vocab_size, const std::string& origin) const;

 private:
  void add(const Json& component, const std::string& origin, int depth);
  void add_template(const Json& component, const std::string& origin);
  void wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& after);
  std::vector<int32_t> prefix_;
  std::vector<int32_t> suffix_;
};

}  // namespace lowbit
