#include "lowbit/jinja/text.h"

#include <algorithm>

#include "lowbit/base/limits.h"
#include "lowbit/jinja/unicode.h"

namespace lowbit::jinja {

namespace {

// Where the code point that ends at `end` begins.
size_t previous(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool all_cased(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool found = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = unicode::decode_at(text, i);
    if (other(c) || unicode::is_title(c)) return false;
    found |= wanted(c);
  }
  return found;
}

std::string repeated(const std::string& fill, size_t count) {
  check_text_size(fill.size() * count);
  std::string out;
  for (size_t i = 0; i < count; ++i) out += fill;
  return out;
}

}  // namespace

void check_text_size(size_t bytes) {
  if (bytes > limits::kTemplateStringBytes) {
    refuse("a string is longer than ", limits::kTemplateStringBytes / limits::kMiB, " MiB");
  }
}

std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right) {
  const std::u32string set = chars ? unicode::decode(*chars) : U"";
  const auto strips = [&](char32_t c) {
    if (!chars) return unicode::is_space(c);
    charge_bytes(set.size());
    return set.find(c) != std::u32string::npos;
  };
  while (left && !text.empty()) {
    size_t next = 0;
    if (!strips(unicode::decode_at(text, next))) break;
    text.remove_prefix(next);
  }
  while (right && !text.empty()) {
    const size_t begin = previous(text, text.size());
    size_t next = begin;
    if (!strips(unicode::decode_at(text, next))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, Int limit,
                                    bool from_right) {
  std::vector<std::string_view> parts;
  while (limit != 0) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    if (from_right) {
      parts.push_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      parts.push_back(text.substr(0, at));
      text = text.substr(at + separator.size());
    }
    if (limit > 0) --limit;
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_space(std::string_view text, Int limit, bool from_right) {
  std::vector<std::string_view> parts;
  for (;;) {
    text = strip(text, nullptr, !from_right, from_right);
    if (text.empty()) break;
    if (limit == 0) {
      parts.push_back(strip(text, nullptr, from_right, !from_right));
      break;
    }
    if (limit > 0) --limit;
    size_t edge = from_right ? text.size() : 0;  // of the word
    while (from_right ? edge > 0 : edge < text.size()) {
      const size_t begin = from_right ? previous(text, edge) : edge;
      size_t next = begin;
      if (unicode::is_space(unicode::decode_at(text, next))) break;
      edge = from_right ? begin : next;
    }
    parts.push_back(from_right ? text.substr(edge) : text.substr(0, edge));
    text = from_right ? text.substr(0, edge) : text.substr(edge);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  charge_bytes(text.size() * 4);
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i;
    const char32_t c = unicode::decode_at(text, i);
    if (!is_line_end(c)) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string replace(std::string_view text, std::string_view old_part, std::string_view new_part,
                    Int limit) {
  charge_bytes(text.size());
  std::string out;
  size_t done = 0;
  const auto put = [&](std::string_view part) {
    check_text_size(out.size() + part.size());
    out += part;
  };
  if (old_part.empty()) {  // before every code point, and at the end
    while (limit != 0 && done < text.size()) {
      const size_t bytes = unicode::sequence_bytes(text[done]);
      put(new_part);
      put(text.substr(done, bytes));
      done += bytes;
      if (limit > 0) --limit;
    }
    if (limit != 0) put(new_part);
  }
  while (limit != 0 && !old_part.empty()) {
    const size_t at = text.find(old_part, done);
    if (at == std::string_view::npos) break;
    put(text.substr(done, at - done));
    put(new_part);
    done = at + old_part.size();
    if (limit > 0) --limit;
  }
  put(text.substr(done));
  return out;
}

std::string pad(const Str& text, size_t width, const std::string& fill, int left, int right) {
  const size_t missing = width > text.length ? width - text.length : 0;
  return (left ? repeated(fill, missing) : "") + text.text + (right ? repeated(fill, missing) : "");
}

// The odd one goes to the left if the width is odd.
std::string center(const Str& text, size_t width, const std::string& fill) {
  const size_t missing = width > text.length ? width - text.length : 0;
  const size_t left = missing / 2 + (missing & width & 1);
  return repeated(fill, left) + text.text + repeated(fill, missing - left);
}

bool is_lower_text(std::string_view text) {
  return all_cased(text, unicode::is_lower, unicode::is_upper);
}

bool is_upper_text(std::string_view text) {
  return all_cased(text, unicode::is_upper, unicode::is_lower);
}

}  // namespace lowbit::jinja
