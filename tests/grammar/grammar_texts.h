// Whether a network takes a text, and texts that it makes.
#pragma once

#include <string>
#include <string_view>

#include "lowbit/grammar/matcher.h"
#include "support/random.h"

namespace lowbit::test {

inline bool takes(grammar::Matcher& matcher, std::string_view text) {
  grammar::Matcher::State state = matcher.start();
  for (const char byte : text) state = matcher.next(state, static_cast<uint8_t>(byte));
  return matcher.accepts(state);
}

inline bool takes(const grammar::Network& network, std::string_view text) {
  grammar::Matcher matcher(network);
  return takes(matcher, text);
}

// A random text: bytes that may come next are drawn until an end, which is taken with probability
// 1 / 4, or always once the text is long. Empty if that does not end it.
inline std::string random_text(grammar::Matcher& matcher, Random& random, size_t length = 400) {
  std::string text;
  grammar::Matcher::State state = matcher.start();
  while (text.size() < 8 * length) {
    if (matcher.finished(state)) return text;
    if (matcher.accepts(state) && (text.size() > length || random.next() % 4 == 0)) return text;
    std::string possible;
    for (int byte = 0; byte < 256; ++byte) {
      if (matcher.next(state, static_cast<uint8_t>(byte)) != grammar::Matcher::kDead) {
        possible += static_cast<char>(byte);
      }
    }
    if (possible.empty()) return "";
    // Closing brackets and quotes get more weight, or texts would hardly ever end.
    for (const char close : {'"', '}', ']'}) {
      if (possible.find(close) != std::string::npos) possible.append(possible.size() / 2 + 1, close);
    }
    text += possible[random.next() % possible.size()];
    state = matcher.next(state, static_cast<uint8_t>(text.back()));
  }
  return "";
}

}  // namespace lowbit::test
