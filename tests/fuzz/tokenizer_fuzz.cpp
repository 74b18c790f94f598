// A small tokenizer.json and a text, separated by the first zero byte: building, encoding and
// decoding may throw lowbit::Error and nothing else, and streaming decodes to the same text.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "lowbit/base/check.h"
#include "lowbit/base/json.h"
#include "lowbit/tokenizer/tokenizer.h"
#include "lowbit/tokenizer/utf8.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_stream(const lowbit::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  lowbit::StreamDecoder stream(tokenizer, skip);
  std::string joined;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    require(lowbit::valid_utf8(part));
    joined += part;
  }
  joined += stream.finish();
  require(joined == tokenizer.decode(ids, skip));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(zero + 1, size));
  try {
    const lowbit::Json document = lowbit::parse_json(input.substr(0, zero), "fuzz");
    const lowbit::TokenizerSpec spec = lowbit::parse_tokenizer_json(document, "fuzz");
    const lowbit::Tokenizer tokenizer(spec);
    for (const bool special : {false, true}) {
      const std::vector<int32_t> ids =
          tokenizer.encode(text, {.add_special_tokens = special, .parse_special = special});
      for (const int32_t id : ids) require(id >= 0 && id < tokenizer.vocab_size());
      check_stream(tokenizer, ids, special);
    }
    // Any ids, in any order.
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<int32_t>(static_cast<uint8_t>(c)) - 2);
    check_stream(tokenizer, ids, false);
  } catch (const lowbit::Error&) {
  }
  return 0;
}
