#include "lowbit/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/unicode.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

class Normalizer::Step {
 public:
  virtual ~Step() = default;
  virtual void apply(std::string& text) const = 0;
};

namespace {

using Step = Normalizer::Step;

class Prepend final : public Step {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace final : public Step {
 public:
  Replace(std::unique_ptr<Pattern> pattern, std::string content, std::string origin)
      : pattern_(std::move(pattern)), content_(std::move(content)), origin_(std::move(origin)) {}

  void apply(std::string& text) const override {
    std::vector<Span> matches;
    pattern_->find(text, matches);
    if (matches.empty()) return;
    LOWBIT_CHECK_KIND(text.size() + matches.size() * content_.size() <= 8 * limits::kPromptBytes,
                      ErrorKind::kUnsupported, origin_, ": the text grows over ",
                      8 * limits::kPromptBytes, " bytes when it is normalized");
    std::string out;
    out.reserve(text.size() + matches.size() * content_.size());
    size_t done = 0;
    for (const Span& match : matches) {
      out.append(text, done, match.begin - done);
      out += content_;
      done = match.end;
    }
    out.append(text, done);
    text = std::move(out);
  }

 private:
  std::unique_ptr<Pattern> pattern_;
  std::string content_;
  std::string origin_;
};

class Strip final : public Step {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  void apply(std::string& text) const override {
    const uint8_t* classes = character_classes();
    const char* begin = text.data();
    const char* end = begin + text.size();
    while (left_ && begin < end) {
      const char* next = begin;
      if (!(classes[next_character(next)] & kSpace)) break;
      begin = next;
    }
    while (right_ && begin < end) {
      const char* last = previous_character(end);
      const char* at = last;
      if (!(classes[next_character(at)] & kSpace)) break;
      end = last;
    }
    text = std::string(begin, end);
  }

 private:
  bool left_, right_;
};

class Lowercase final : public Step {
 public:
  void apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (const char* at = text.data(); at < text.data() + text.size();) {
      const char32_t code = next_character(at);
      if (code == 0x130) {
        out += "i\xCC\x87";  // the one character whose lower case is two
      } else if (const char32_t newer = newer_lowercase(code)) {
        append_utf8(newer, out);
      } else {
        append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(code))), out);
      }
    }
    text = std::move(out);
  }
};

// NFC, NFD, NFKC, NFKD. utf8proc's own loop sorts combining marks in quadratic time, so the order
// is made here and only the tables and the composition are utf8proc's.
class UnicodeForm final : public Step {
 public:
  UnicodeForm(bool compatible, bool compose) : compatible_(compatible), compose_(compose) {}

  void apply(std::string& text) const override {
    // No ASCII character decomposes or combines with another.
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 128; }))
      return;
    std::vector<utf8proc_int32_t> codes = decomposed(text);
    sort_marks(codes);
    if (compose_) {
      const auto length = utf8proc_normalize_utf32(
          codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
      LOWBIT_CHECK_KIND(length >= 0, ErrorKind::kUnsupported,
                        "normalizing text: ", utf8proc_errmsg(length));
      codes.resize(static_cast<size_t>(length));
    }
    text.clear();
    for (const utf8proc_int32_t code : codes) append_utf8(static_cast<char32_t>(code), text);
  }

 private:
  std::vector<utf8proc_int32_t> decomposed(const std::string& text) const {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compatible_ ? UTF8PROC_COMPAT : 0));
    std::vector<utf8proc_int32_t> codes;
    codes.reserve(text.size() + 32);
    utf8proc_int32_t buffer[64];
    for (const char* at = text.data(); at < text.data() + text.size();) {
      const auto code = static_cast<utf8proc_int32_t>(next_character(at));
      if (keeps_composed(static_cast<char32_t>(code))) {
        codes.push_back(code);
        continue;
      }
      int boundary = 0;
      const auto count = utf8proc_decompose_char(code, buffer, 64, options, &boundary);
      LOWBIT_CHECK_KIND(count >= 0 && count <= 64, ErrorKind::kUnsupported,
                        "normalizing text: ", utf8proc_errmsg(count));
      codes.insert(codes.end(), buffer, buffer + count);
    }
    codes.reserve(codes.size() + 1);
    return codes;
  }

  // Canonical ordering: every run of marks by combining class, equal ones in their order.
  static void sort_marks(std::vector<utf8proc_int32_t>& codes) {
    const auto combining = [](utf8proc_int32_t code) {
      return utf8proc_get_property(code)->combining_class;
    };
    for (size_t begin = 0; begin < codes.size();) {
      size_t end = begin;
      while (end < codes.size() && combining(codes[end]) != 0) ++end;
      if (end - begin > 1) {
        std::stable_sort(codes.begin() + static_cast<ptrdiff_t>(begin),
                         codes.begin() + static_cast<ptrdiff_t>(end),
                         [&](auto a, auto b) { return combining(a) < combining(b); });
      }
      begin = end + 1;
    }
  }

  bool compatible_, compose_;
};

}  // namespace

Normalizer::~Normalizer() = default;

Normalizer::Normalizer(const Json& component, const std::string& origin) {
  if (!component.is_null()) add(component, origin, 0);
}

void Normalizer::add(const Json& component, const std::string& origin, int depth) {
  const std::string type = json_string(component, "type", "", origin);
  LOWBIT_CHECK_KIND(depth < 8 && steps_.size() < limits::kTokenizerSteps, ErrorKind::kUnsupported,
                    origin, ": more than ", limits::kTokenizerSteps, " normalizers");
  if (type == "Sequence") {
    const auto list = component.find("normalizers");
    LOWBIT_CHECK_KIND(list != component.end() && list->is_array(), ErrorKind::kCorruptFile, origin,
                      ": normalizer Sequence has no list \"normalizers\"");
    for (const Json& element : *list) add(element, origin, depth + 1);
  } else if (type == "Prepend") {
    steps_.push_back(std::make_unique<Prepend>(json_string(component, "prepend", "", origin)));
  } else if (type == "Replace") {
    steps_.push_back(
        std::make_unique<Replace>(parse_pattern(component.value("pattern", Json()), origin),
                                  json_string(component, "content", "", origin), origin));
  } else if (type == "Strip") {
    steps_.push_back(std::make_unique<Strip>(json_bool(component, "strip_left", true, origin),
                                             json_bool(component, "strip_right", true, origin)));
  } else if (type == "Lowercase") {
    steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.push_back(std::make_unique<UnicodeForm>(type[2] == 'K', type.back() == 'C'));
  } else {
    fail(ErrorKind::kUnsupported, origin, ": normalizer \"", type,
         "\"; lowbit knows Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase and Strip");
  }
}

std::string Normalizer::normalize(std::string_view text) const {
  std::string out(text);
  for (const auto& step : steps_) step->apply(out);
  return out;
}

}  // namespace lowbit
