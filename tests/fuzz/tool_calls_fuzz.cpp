// libFuzzer: the input is what a model writes; the first byte is the style. However the text is cut,
// the same calls come out.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lowbit/server/tool_calls.h"

namespace {

using namespace lowbit::server;

std::string parse(ToolStyle style, const std::string& text, size_t step) {
  ToolCallParser parser(style, {"f", "g"}, 3);
  std::string content, calls;
  const auto take = [&](const ToolText& piece) {
    content += piece.content;
    for (const ToolDelta& delta : piece.calls) {
      if (!delta.name.empty()) calls += "\n" + std::to_string(delta.index) + delta.name + " ";
      calls += delta.arguments;
    }
  };
  for (size_t at = 0; at < text.size(); at += step) take(parser.push(text.substr(at, step)));
  take(parser.finish());
  return content + calls;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto style = static_cast<ToolStyle>(data[0] % 3);
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string whole = parse(style, text, text.size());
  if (parse(style, text, 1) != whole || parse(style, text, 5) != whole) abort();
  return 0;
}
