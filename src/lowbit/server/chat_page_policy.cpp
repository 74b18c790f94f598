#include <cstdint>

#include "lowbit/base/checksum.h"
#include "lowbit/server/chat_page.h"

namespace lowbit::server {

namespace {

std::string base64_of_hex(const std::string& hex) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto nibble = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string result;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : hex) {  // four bits in, six bits out
    bits = bits << 4 | static_cast<uint32_t>(nibble(c));
    count += 4;
    if (count < 6) continue;
    count -= 6;
    result += kDigits[bits >> count & 63];
  }
  if (count > 0) result += kDigits[bits << (6 - count) & 63];
  while (result.size() % 4 != 0) result += '=';
  return result;
}

// 'sha256-...' of what stands between <tag> and </tag>.
std::string source_hash(std::string_view page, const std::string& tag) {
  const size_t open = page.find("<" + tag + ">");
  if (open == std::string_view::npos) return "'none'";
  const size_t begin = open + tag.size() + 2;
  const std::string_view source = page.substr(begin, page.find("</" + tag + ">", begin) - begin);
  return "'sha256-" + base64_of_hex(sha256(source)) + "'";
}

}  // namespace

std::string chat_page_policy() {
  return "default-src 'none'; connect-src 'self'; img-src data:; script-src " +
         source_hash(chat_page(), "script") + "; style-src " + source_hash(chat_page(), "style") +
         "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
}

}  // namespace lowbit::server
