#include "lowbit/tokenizer/pretokenize.h"

#include <algorithm>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/byte_level.h"
#include "lowbit/tokenizer/unicode.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

class PreTokenizer::Step {
 public:
  virtual ~Step() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

namespace {

using Step = PreTokenizer::Step;

// What becomes of the matches of a pattern (SplitDelimiterBehavior of `tokenizers`).
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior parse_behavior(const std::string& name, const std::string& origin) {
  constexpr std::pair<const char*, Behavior> kNames[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  fail(ErrorKind::kUnsupported, origin, ": split behavior \"", name, "\"");
}

struct Part {
  Span span;
  bool match;
};

// Appends the pieces that `parts`, which cover a span without gaps, become.
void merge_parts(std::vector<Part>& parts, Behavior behavior, std::vector<Span>& out) {
  const size_t first = out.size();
  const auto push = [&](Span span) { out.push_back(span); };
  bool previous = false;
  switch (behavior) {
    case Behavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.match) push(part.span);
      }
      break;
    case Behavior::kIsolated:
      for (const Part& part : parts) push(part.span);
      break;
    case Behavior::kMergedWithPrevious:
    case Behavior::kContiguous:
      for (const Part& part : parts) {
        const bool join =
            behavior == Behavior::kContiguous ? part.match == previous : part.match && !previous;
        if (join && out.size() > first) {
          out.back().end = part.span.end;
        } else {
          push(part.span);
        }
        previous = part.match;
      }
      break;
    case Behavior::kMergedWithNext:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->match && !previous && out.size() > first) {
          out.back().begin = part->span.begin;
        } else {
          push(part->span);
        }
        previous = part->match;
      }
      std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
      break;
  }
  out.erase(std::remove_if(out.begin() + static_cast<ptrdiff_t>(first), out.end(),
                           [](Span span) { return span.begin == span.end; }),
            out.end());
}

class Split final : public Step {
 public:
  Split(std::unique_ptr<Pattern> pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    std::vector<Span> out;
    out.reserve(pieces.spans.size());
    std::vector<Span> matches;
    std::vector<Part> parts;
    for (const Span& span : pieces.spans) {
      matches.clear();
      pattern_->find(pieces.text.substr(span.begin, span.end - span.begin), matches);
      if (behavior_ == Behavior::kIsolated) {
        isolate(span, matches, out);
        continue;
      }
      parts.clear();
      uint32_t done = span.begin;
      for (const Span& match : matches) {
        const Span found{span.begin + match.begin, span.begin + match.end};
        if (done != found.begin) parts.push_back({{done, found.begin}, invert_});
        parts.push_back({found, !invert_});
        done = found.end;
      }
      if (done != span.end) parts.push_back({{done, span.end}, invert_});
      merge_parts(parts, behavior_, out);
    }
    if (pieces.at_start) {
      pieces.at_start = !out.empty() && out[0].begin == pieces.spans[0].begin;
    }
    pieces.spans = std::move(out);
  }

 private:
  static void isolate(Span span, const std::vector<Span>& matches, std::vector<Span>& out) {
    uint32_t done = span.begin;
    for (const Span& match : matches) {
      const Span found{span.begin + match.begin, span.begin + match.end};
      if (done != found.begin) out.push_back({done, found.begin});
      if (found.begin != found.end) out.push_back(found);
      done = found.end;
    }
    if (done != span.end) out.push_back({done, span.end});
  }

  std::unique_ptr<Pattern> pattern_;
  Behavior behavior_;
  bool invert_;
};

// Every character that has one of some class bits is a match.
class ClassPattern final : public Pattern {
 public:
  explicit ClassPattern(uint8_t bits) : bits_(bits) {}

  void find(std::string_view text, std::vector<Span>& matches) const override {
    const uint8_t* classes = character_classes();
    const char* begin = text.data();
    for (const char* at = begin; at < begin + text.size();) {
      const char* start = at;
      if (classes[next_character(at)] & bits_) {
        matches.push_back(
            {static_cast<uint32_t>(start - begin), static_cast<uint32_t>(at - begin)});
      }
    }
  }

 private:
  uint8_t bits_;
};

// `\w+|[^\w\s]+`
class WordPattern final : public Pattern {
 public:
  void find(std::string_view text, std::vector<Span>& matches) const override {
    const uint8_t* classes = character_classes();
    const char* begin = text.data();
    uint8_t run = 0;  // kWord, kSpace or 0 for the others
    for (const char* at = begin; at < begin + text.size();) {
      const auto start = static_cast<uint32_t>(at - begin);
      const uint8_t bits = classes[next_character(at)];
      const uint8_t kind = bits & kWord ? kWord : bits & kSpace;
      const auto end = static_cast<uint32_t>(at - begin);
      if (kind != kSpace) {
        if (kind == run && !matches.empty() && matches.back().end == start) {
          matches.back().end = end;
        } else {
          matches.push_back({start, end});
        }
      }
      run = kind;
    }
  }
};

// Rewrites every piece through `rewrite(piece, first, out)`.
template <typename Rewrite>
void rewrite_pieces(Pieces& pieces, const Rewrite& rewrite) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 2);
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    Span& span = pieces.spans[i];
    const auto begin = static_cast<uint32_t>(text.size());
    rewrite(pieces.text.substr(span.begin, span.end - span.begin), i == 0 && pieces.at_start, text);
    LOWBIT_CHECK_KIND(text.size() <= 8 * limits::kPromptBytes, ErrorKind::kUnsupported,
                      "the text grows over ", 8 * limits::kPromptBytes,
                      " bytes when it is pre-tokenized");
    span = {begin, static_cast<uint32_t>(text.size())};
  }
  pieces.owned = std::move(text);
  pieces.text = pieces.owned;
}

// ByteLevel's add_prefix_space: every piece, not only the first, gets one if it has none.
class PrefixSpace final : public Step {
 public:
  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) {
      if (piece[0] != ' ') out += ' ';
      out += piece;
    });
  }
};

class SpellBytes final : public Step {
 public:
  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) {
      append_byte_level(piece, out);
    });
  }
};

// Spaces become the replacement; the splitting is a step of its own.
class Metaspace final : public Step {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend)
      : replacement_(std::move(replacement)), prepend_(prepend) {}

  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [&](std::string_view piece, bool first, std::string& out) {
      const bool starts = piece[0] == ' ' || piece.substr(0, replacement_.size()) == replacement_;
      if (!starts && (prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && first))) {
        out += replacement_;
      }
      for (const char c : piece) {
        if (c == ' ') {
          out += replacement_;
        } else {
          out += c;
        }
      }
    });
  }

 private:
  std::string replacement_;
  Prepend prepend_;
};

Metaspace::Prepend parse_prepend(const Json& component, const std::string& origin) {
  const std::string scheme = json_string(component, "prepend_scheme", "always", origin);
  if (!json_bool(component, "add_prefix_space", true, origin)) return Metaspace::Prepend::kNever;
  if (scheme == "always") return Metaspace::Prepend::kAlways;
  if (scheme == "first") return Metaspace::Prepend::kFirst;
  if (scheme == "never") return Metaspace::Prepend::kNever;
  fail(ErrorKind::kUnsupported, origin, ": Metaspace prepend_scheme \"", scheme, "\"");
}

std::unique_ptr<Step> split_class(uint8_t bits, Behavior behavior) {
  return std::make_unique<Split>(std::make_unique<ClassPattern>(bits), behavior, false);
}

}  // namespace

PreTokenizer::~PreTokenizer() = default;

PreTokenizer::PreTokenizer(const Json& component, const std::string& origin) {
  if (!component.is_null()) add(component, origin, 0);
}

void PreTokenizer::spell_bytes() {
  if (byte_level_) steps_.push_back(std::make_unique<SpellBytes>());
  byte_level_ = false;
}

void PreTokenizer::add_byte_level(const Json& component, const std::string& origin) {
  if (json_bool(component, "add_prefix_space", true, origin)) {
    steps_.push_back(std::make_unique<PrefixSpace>());
  }
  if (json_bool(component, "use_regex", true, origin)) {
    steps_.push_back(
        std::make_unique<Split>(regex_pattern(kGpt2Regex, origin), Behavior::kIsolated, false));
  }
  byte_level_ = true;
}

void PreTokenizer::add(const Json& component, const std::string& origin, int depth) {
  const std::string type = json_string(component, "type", "", origin);
  LOWBIT_CHECK_KIND(depth < 8 && steps_.size() < limits::kTokenizerSteps, ErrorKind::kUnsupported,
                    origin, ": more than ", limits::kTokenizerSteps, " pre-tokenizers");
  if (type != "Sequence") spell_bytes();  // a ByteLevel that turns out not to be the last
  if (type == "Sequence") {
    const auto list = component.find("pretokenizers");
    LOWBIT_CHECK_KIND(list != component.end() && list->is_array(), ErrorKind::kCorruptFile, origin,
                      ": pre-tokenizer Sequence has no list \"pretokenizers\"");
    for (const Json& element : *list) add(element, origin, depth + 1);
  } else if (type == "ByteLevel") {
    add_byte_level(component, origin);
  } else if (type == "Split") {
    steps_.push_back(std::make_unique<Split>(
        parse_pattern(component.value("pattern", Json()), origin),
        parse_behavior(json_string(component, "behavior", "", origin), origin),
        json_bool(component, "invert", false, origin)));
  } else if (type == "Digits") {
    const bool individual = json_bool(component, "individual_digits", false, origin);
    steps_.push_back(
        split_class(kNumeric, individual ? Behavior::kIsolated : Behavior::kContiguous));
  } else if (type == "Punctuation") {
    steps_.push_back(split_class(
        kPunctuation,
        parse_behavior(json_string(component, "behavior", "Isolated", origin), origin)));
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(split_class(kSpace, Behavior::kRemoved));
  } else if (type == "Whitespace") {
    steps_.push_back(
        std::make_unique<Split>(std::make_unique<WordPattern>(), Behavior::kRemoved, true));
  } else if (type == "CharDelimiterSplit") {
    steps_.push_back(
        std::make_unique<Split>(literal_pattern(json_string(component, "delimiter", "", origin)),
                                Behavior::kRemoved, false));
  } else if (type == "Metaspace") {
    const std::string replacement = json_string(component, "replacement", "\u2581", origin);
    steps_.push_back(std::make_unique<Metaspace>(replacement, parse_prepend(component, origin)));
    if (json_bool(component, "split", true, origin)) {
      steps_.push_back(
          std::make_unique<Split>(literal_pattern(replacement), Behavior::kMergedWithNext, false));
    }
  } else {
    fail(ErrorKind::kUnsupported, origin, ": pre-tokenizer \"", type,
         "\"; lowbit knows Sequence, Split, ByteLevel, Digits, Metaspace, Punctuation, Whitespace, "
         "WhitespaceSplit and CharDelimiterSplit");
  }
}

void PreTokenizer::split(Pieces& pieces) const {
  for (const auto& step : steps_) {
    if (pieces.spans.empty()) return;
    step->apply(pieces);
  }
}

}  // namespace lowbit
