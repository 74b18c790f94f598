// Every cap on input from outside, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lowbit::limits {

constexpr size_t kMiB = size_t{1} << 20;

constexpr size_t kJsonBytes = 256 * kMiB;    // one JSON file (tokenizer.json is 9-30 MiB)
constexpr int kJsonDepth = 64;               // nesting of arrays and objects
constexpr size_t kConfigBytes = 8 * kMiB;    // config.json, generation_config.json, index files
constexpr size_t kTemplateBytes = 1 * kMiB;  // a chat template's source

constexpr uint64_t kSafetensorsHeaderBytes = 100'000'000;  // as the reference reader
constexpr size_t kTensorCount = 200'000;                   // tensors in one file
constexpr size_t kTensorNameBytes = 512;
constexpr size_t kTensorRank = 8;
constexpr size_t kShardCount = 2'000;

constexpr uint64_t kGgufKvCount = 65'536;
constexpr uint64_t kGgufArrayElements = 16'000'000;
constexpr uint64_t kGgufStringBytes = 16 * kMiB;
constexpr uint64_t kGgufKeyBytes = 65'535;

constexpr int64_t kVocabSize = 4'000'000;
constexpr int64_t kLayers = 1'000;
constexpr int64_t kDimension = 1 << 20;  // hidden, intermediate, heads * head_dim
constexpr int64_t kContext = 1 << 24;    // tokens
constexpr size_t kTokenBytes = 65'536;   // one vocabulary entry
constexpr size_t kPromptBytes = 256 * kMiB;

constexpr uint64_t kTemplateSteps = 4'000'000;  // of one rendering: expressions, 256 bytes, ...
constexpr size_t kTemplateOutputBytes = 16 * kMiB;
constexpr size_t kTemplateStringBytes = 16 * kMiB;   // one string inside of a template
constexpr size_t kTemplateMemoryBytes = 256 * kMiB;  // all live values of one rendering
constexpr size_t kTemplateElements = 1'000'000;      // of a list made by repetition or padding
constexpr int kTemplateDepth = 1'000;                // recursion while rendering
constexpr int kTemplateNesting = 128;                // of syntax, and of lists and dicts
constexpr int64_t kTemplateRange = 100'000;

}  // namespace lowbit::limits
