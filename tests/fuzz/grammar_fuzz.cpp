// libFuzzer: the first byte says whether the rest is a regular expression, a grammar or a JSON
// schema. What can be compiled is then walked: it must never get stuck.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/grammar/gbnf.h"
#include "lowbit/grammar/json_schema.h"
#include "lowbit/grammar/matcher.h"
#include "lowbit/grammar/regex.h"

namespace {

using namespace lowbit;
using namespace lowbit::grammar;

Network compile(uint8_t kind, const std::string& source) {
  if (kind % 3 == 0) return gbnf(source);
  Builder builder;
  JsonText json(builder);
  const int32_t root = builder.add_rule();
  if (kind % 3 == 1) {
    const Anchoring anchoring = (kind & 4) != 0 ? Anchoring::kSearch : Anchoring::kWhole;
    const Spelling spelling = (kind & 8) != 0 ? Spelling::kJsonString : Spelling::kPlain;
    builder.define(root, regex(builder, source, anchoring, spelling));
  } else {
    builder.define(root, json_schema(builder, json, parse_ordered_json(source, "schema")));
  }
  return builder.finish(root);
}

void walk(Matcher& matcher, uint32_t seed) {
  Matcher::State state = matcher.start();
  for (int step = 0; step < 64 && !matcher.finished(state); ++step) {
    seed = seed * 1664525 + 1013904223;
    bool any = matcher.accepts(state);
    for (int i = 0; i < 256; ++i) {
      const auto byte = static_cast<uint8_t>((seed >> 16) + static_cast<uint32_t>(i));
      const Matcher::State next = matcher.next(state, byte);
      if (next == Matcher::kDead) continue;
      state = next;
      any = true;
      break;
    }
    if (!any) abort();  // neither an end nor a way on
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  try {
    Matcher matcher(
        compile(data[0], std::string(reinterpret_cast<const char*>(data) + 1, size - 1)));
    for (uint32_t seed = 0; seed < 4; ++seed) walk(matcher, seed * 77 + data[1]);
  } catch (const Error&) {
  }
  return 0;
}
