// libFuzzer: the input is the JSON body of a request, read as every endpoint reads it, up to where
// a model is needed.
#include <cstdint>
#include <string>

#include "lowbit/base/check.h"
#include "lowbit/server/api_error.h"
#include "lowbit/server/chat.h"
#include "lowbit/server/chat_prompt.h"
#include "lowbit/server/completions.h"
#include "lowbit/server/guide.h"
#include "lowbit/server/responses.h"
#include "lowbit/server/sampling.h"

namespace {

using namespace lowbit;
using namespace lowbit::server;

Guides& guides() {
  static Guides instance({"", "a", "b", "\"", "{", "}", "1", ":", ",", " "}, {0}, 10);
  return instance;
}

template <typename Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const ApiError&) {
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  attempt([&] {
    const OrderedJson body = parse_body(std::string(reinterpret_cast<const char*>(data), size));
    attempt([&] { check_fields(body, completion_fields()); });
    attempt([&] { check_fields(body, sampling_fields()); });
    attempt([&] {
      check_fields(body, chat_fields());
      const Conversation conversation = read_conversation(body);
      if (!conversation.tools.is_null()) {
        guides().compile_calls(ToolStyle::kHermes, conversation.tools, 3);
      }
    });
    attempt([&] {
      check_fields(body, responses_fields());
      normalize_messages(messages_of_input(body));
    });
    attempt([&] {
      if (const auto guide = read_guide(body)) guides().compile(*guide);
    });
  });
  return 0;
}
