#include "lowbit/quantize/hf_config.h"

#include "lowbit/base/check.h"
#include "lowbit/quantize/fault.h"

namespace lowbit {

namespace {

constexpr const char* kCopied[] = {
    "generation_config.json", "tokenizer.json",      "tokenizer_config.json",
    "tokenizer.model",        "vocab.json",          "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json",
    "chat_template.json"};

}  // namespace

Json hf_config(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& dtype) {
  LOWBIT_CHECK_KIND(config.rope.type != RopeType::kFactors, ErrorKind::kUnsupported,
                    "the model's rope factors are of no kind that config.json has a name for; ",
                    "--format gguf can keep them");
  Json document = checkpoint.config();
  document.erase("quantization_config");
  document.erase("compression_config");
  const char* name = dtype == "BF16" ? "bfloat16" : "float16";
  document["torch_dtype"] = name;
  if (document.contains("dtype")) document["dtype"] = name;
  return document;
}

void copy_tokenizer(const Checkpoint& checkpoint, const fs::path& result) {
  const fs::path from = checkpoint.path();
  if (fs::is_directory(from)) {
    for (const char* name : kCopied) {
      fault_point("copy");
      if (!fs::exists(from / name)) continue;
      write_file_atomic(result / name, read_file(from / name, limits::kJsonBytes));
    }
    return;
  }
  const TokenizerSpec spec = checkpoint.tokenizer();
  fault_point("tokenizer");
  write_file_atomic(result / "tokenizer.json", tokenizer_json(spec));
  write_file_atomic(result / "tokenizer_config.json", tokenizer_config_json(spec));
  if (!checkpoint.generation_config().is_null()) {
    write_file_atomic(result / "generation_config.json",
                      dump_json(checkpoint.generation_config(), 2) + "\n");
  }
}

}  // namespace lowbit
