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
constexpr uint64_t kGgufTensorNameBytes = 63;
constexpr uint32_t kGgufRank = 4;

constexpr int64_t kVocabSize = 4'000'000;
constexpr int64_t kLayers = 1'000;
constexpr int64_t kDimension = 1 << 20;  // hidden, intermediate, heads * head_dim
constexpr int64_t kContext = 1 << 24;    // tokens
constexpr int64_t kHeads = 1 << 16;
constexpr size_t kEndTokens = 256;      // ids that end a text
constexpr size_t kTokenBytes = 65'536;  // one vocabulary entry
constexpr size_t kPromptBytes = 256 * kMiB;
constexpr int64_t kVocabHoles = 1 << 20;  // ids below the highest that no piece has
constexpr size_t kSpmPieceBytes = 1'024;  // one SentencePiece piece: all its cuts are tried
constexpr size_t kMerges = 8'000'000;
constexpr size_t kAddedTokens = 200'000;
constexpr size_t kAddedTokenBytes = 512;  // one added token: each is searched at every byte
constexpr size_t kTokenizerSteps = 64;    // normalizers, pre-tokenizers, decoders in sequence
constexpr size_t kRegexBytes = 65'536;    // source of one regular expression
constexpr uint32_t kRegexMatchSteps = 1'000'000;
constexpr uint32_t kRegexHeapKib = 65'536;
constexpr int kRegexSeconds = 10;  // one text through one regular expression

constexpr size_t kQuantStateBytes = 65'536;  // a JSON text inside a tensor (bitsandbytes)

constexpr size_t kTraceSpans = 1 << 20;  // kept of one thread (24 MiB)

constexpr size_t kJournalBytes = 256 * kMiB;  // of an unfinished quantize run

constexpr size_t kChildResultBytes = 64 * kMiB;  // what a process tells the one that forked it

// What `lowbit compare` is told to do.
constexpr size_t kRecipeBytes = 65'536;
constexpr size_t kRecipeDepth = 8;  // nesting of lists and maps
constexpr size_t kRecipeNodes = 4'096;
constexpr size_t kRecipeMethods = 64;

// The Hugging Face hub.
constexpr size_t kHubListingBytes = 64 * kMiB;  // what a repository holds, as JSON
constexpr size_t kHubFiles = 100'000;           // of one repository
constexpr size_t kHubNameBytes = 1'024;         // of one file, folders included
constexpr size_t kHubHeaderFields = 200;        // of one answer
constexpr size_t kHubErrorBytes = 16'384;       // kept of an answer that is an error
constexpr int kHubRedirects = 10;

// What a server sends to the load generator.
constexpr size_t kEventBytes = 16 * kMiB;  // one event of a stream, or an answer that is an error
constexpr size_t kDatasetBytes = 1024 * kMiB;  // a file of conversations

// One request to the engine.
constexpr int kChoices = 128;  // n, best_of
constexpr int kTopLogprobs = 128;
constexpr size_t kLogitBiases = 1'024;
constexpr size_t kStopTokens = 256;
constexpr size_t kStopStrings = 64;
constexpr size_t kStopStringBytes = 4'096;  // each
constexpr size_t kCacheSaltBytes = 4'096;

constexpr uint64_t kTemplateSteps = 4'000'000;  // of one rendering: expressions, 256 bytes, ...
constexpr size_t kTemplateOutputBytes = 16 * kMiB;
constexpr size_t kTemplateStringBytes = 16 * kMiB;   // one string inside of a template
constexpr size_t kTemplateMemoryBytes = 256 * kMiB;  // all live values of one rendering
constexpr size_t kTemplateElements = 1'000'000;      // of a list made by repetition or padding
constexpr int kTemplateDepth = 1'000;                // recursion while rendering
constexpr int kTemplateNesting = 128;                // of syntax, and of lists and dicts
constexpr int64_t kTemplateRange = 100'000;

}  // namespace lowbit::limits
