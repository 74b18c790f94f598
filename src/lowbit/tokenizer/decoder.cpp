#include "lowbit/tokenizer/decoder.h"

#include <functional>
#include <optional>

#include "lowbit/base/check.h"
#include "lowbit/tokenizer/byte_level.h"
#include "lowbit/tokenizer/pattern.h"
#include "lowbit/tokenizer/utf8.h"

namespace lowbit {

// One decoder at work: takes tokens, gives tokens to the next. Behind Fuse (or ByteLevel, which
// fuses too) there is one long token that arrives in parts: `fused` says so at construction.
class Decoder::Stage {
 public:
  virtual ~Stage() = default;
  virtual void push(std::string_view token) = 0;
  virtual void finish() {}

  Stage* next = nullptr;        // absent for the last stage,
  std::string* text = nullptr;  // which appends here

 protected:
  void emit(std::string_view token) {
    if (next != nullptr) {
      next->push(token);
    } else {
      text->append(token);
    }
  }
};

class Decoder::Factory {
 public:
  virtual ~Factory() = default;
  virtual std::unique_ptr<Stage> stage(bool fused) const = 0;
  virtual bool fuses() const { return false; }
};

namespace {

using Stage = Decoder::Stage;

// No decoder: tokens joined by spaces.
class Join final : public Stage {
 public:
  void push(std::string_view token) override {
    if (!first_) emit(" ");
    first_ = false;
    emit(token);
  }

 private:
  bool first_ = true;
};

class ByteLevelStage final : public Stage {
 public:
  void push(std::string_view token) override {
    const auto bytes = from_byte_level(token);
    pending_ += bytes ? std::string_view(*bytes) : token;
    flush(false);
  }
  void finish() override { flush(true); }

 private:
  void flush(bool final) {
    std::string characters;
    pending_.erase(0, append_lossy(pending_, final, characters));
    if (!characters.empty()) emit(characters);
  }
  std::string pending_;  // the beginning of a character
};

// "<0x0A>" as `tokenizers` reads it: two hexadecimal digits, or a sign and one.
std::optional<uint8_t> byte_of(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]);
  const int low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

// A run of byte tokens is text if all of it is UTF-8, else one U+FFFD for each of them.
class ByteFallbackStage final : public Stage {
 public:
  void push(std::string_view token) override {
    if (const auto byte = byte_of(token)) {
      run_.push_back(static_cast<char>(*byte));
      return;
    }
    finish();
    emit(token);
  }
  void finish() override {
    if (run_.empty()) return;
    if (valid_utf8(run_)) {
      emit(run_);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) emit(kReplacementCharacter);
    }
    run_.clear();
  }

 private:
  std::string run_;
};

class FuseStage final : public Stage {
 public:
  void push(std::string_view token) override { emit(token); }
};

// Collects a fused token and treats it as the single token it is: right, though it streams nothing.
class WholeStage final : public Stage {
 public:
  explicit WholeStage(std::unique_ptr<Stage> inner) : inner_(std::move(inner)) {}
  void push(std::string_view token) override { all_ += token; }
  void finish() override {
    std::string out;
    inner_->text = &out;
    if (!all_.empty()) inner_->push(all_);
    inner_->finish();
    emit(out);
  }

 private:
  std::unique_ptr<Stage> inner_;
  std::string all_;
};

class ReplaceStage final : public Stage {
 public:
  ReplaceStage(const Pattern& pattern, const std::string& content)
      : pattern_(pattern), content_(content) {}

  void push(std::string_view token) override {
    std::vector<Span> matches;
    pattern_.find(token, matches);
    std::string out;
    size_t done = 0;
    for (const Span& match : matches) {
      out.append(token.substr(done, match.begin - done)).append(content_);
      done = match.end;
    }
    emit(out.append(token.substr(done)));
  }

 private:
  const Pattern& pattern_;
  const std::string& content_;
};

// Takes up to `start` leading and `stop` trailing `content` characters off a token.
class StripStage final : public Stage {
 public:
  StripStage(const std::string& content, int64_t start, int64_t stop, bool fused)
      : content_(content), start_(start), stop_(stop), fused_(fused), left_(start) {}

  void push(std::string_view token) override {
    if (!fused_) left_ = start_;
    held_ += token;
    while (left_ > 0 && !held_.empty()) {
      if (held_.compare(0, content_.size(), content_) != 0) {
        left_ = 0;
      } else {
        held_.erase(0, content_.size());
        --left_;
      }
    }
    // What may still have to go if the token ends here.
    const size_t tail = tail_of(held_);
    emit(std::string_view(held_).substr(0, held_.size() - tail));
    held_.erase(0, held_.size() - tail);
    if (!fused_) held_.clear();
  }

 private:
  size_t tail_of(std::string_view text) const {
    size_t tail = 0;
    for (int64_t i = 0; i < stop_; ++i) {
      const std::string_view rest = text.substr(0, text.size() - tail);
      if (rest.size() < content_.size() || rest.substr(rest.size() - content_.size()) != content_) {
        break;
      }
      tail += content_.size();
    }
    return tail;
  }

  const std::string& content_;
  int64_t start_, stop_;
  bool fused_;
  int64_t left_;
  std::string held_;
};

class MetaspaceStage final : public Stage {
 public:
  MetaspaceStage(const std::string& replacement, bool prepended, bool fused)
      : replacement_(replacement), drop_(prepended), fused_(fused) {}

  void push(std::string_view token) override {
    std::string out;
    for (size_t i = 0; i < token.size();) {
      if (token.substr(i, replacement_.size()) == replacement_) {
        if (!drop_) out += ' ';
        i += replacement_.size();
      } else {
        out += token[i++];
      }
    }
    if (!fused_) drop_ = false;
    emit(out);
  }

 private:
  const std::string& replacement_;
  bool drop_;  // in the first token: what the pre-tokenizer put there
  bool fused_;
};

class Simple final : public Decoder::Factory {
 public:
  Simple(std::function<std::unique_ptr<Stage>(bool)> make, bool fuses)
      : make_(std::move(make)), fuses_(fuses) {}
  std::unique_ptr<Stage> stage(bool fused) const override { return make_(fused); }
  bool fuses() const override { return fuses_; }

 private:
  std::function<std::unique_ptr<Stage>(bool)> make_;
  bool fuses_;
};

template <typename S>
std::unique_ptr<Decoder::Factory> stateless(bool fuses) {
  return std::make_unique<Simple>([](bool) { return std::make_unique<S>(); }, fuses);
}

// A stage that needs whole tokens even where they arrive in parts.
std::unique_ptr<Stage> whole_tokens(std::unique_ptr<Stage> stage, bool fused) {
  if (!fused) return stage;
  return std::make_unique<WholeStage>(std::move(stage));
}

std::unique_ptr<Decoder::Factory> replace(const Json& component, const std::string& origin) {
  std::shared_ptr<Pattern> pattern = parse_pattern(component.value("pattern", Json()), origin);
  return std::make_unique<Simple>(
      [pattern, content = json_string(component, "content", "", origin)](bool fused) {
        return whole_tokens(std::make_unique<ReplaceStage>(*pattern, content), fused);
      },
      false);
}

std::unique_ptr<Decoder::Factory> strip(const Json& component, const std::string& origin) {
  const std::string content = json_string(component, "content", " ", origin);
  const int64_t start = json_int(component, "start", 0, origin);
  const int64_t stop = json_int(component, "stop", 0, origin);
  LOWBIT_CHECK_KIND(
      !content.empty() && static_cast<size_t>(utf8_sequence(content).length) == content.size() &&
          start >= 0 && stop >= 0,
      ErrorKind::kCorruptFile, origin,
      ": decoder Strip needs one character as \"content\", \"start\" and \"stop\" of 0 or more");
  return std::make_unique<Simple>(
      [content, start, stop](bool fused) {
        return std::make_unique<StripStage>(content, start, stop, fused);
      },
      false);
}

std::unique_ptr<Decoder::Factory> metaspace(const Json& component, const std::string& origin) {
  const std::string replacement = json_string(component, "replacement", "\u2581", origin);
  LOWBIT_CHECK_KIND(!replacement.empty(), ErrorKind::kCorruptFile, origin,
                    ": decoder Metaspace has an empty \"replacement\"");
  const bool prepended = json_string(component, "prepend_scheme", "always", origin) != "never" &&
                         json_bool(component, "add_prefix_space", true, origin);
  return std::make_unique<Simple>(
      [replacement, prepended](bool fused) {
        return std::make_unique<MetaspaceStage>(replacement, prepended, fused);
      },
      false);
}

}  // namespace

Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

Decoder::Decoder(const Json& component, const std::string& origin) {
  if (component.is_null()) {
    factories_.push_back(stateless<Join>(true));
  } else {
    add(component, origin, 0);
  }
}

void Decoder::add(const Json& component, const std::string& origin, int depth) {
  const std::string type = json_string(component, "type", "", origin);
  LOWBIT_CHECK_KIND(depth < 8 && factories_.size() < limits::kTokenizerSteps,
                    ErrorKind::kUnsupported, origin, ": more than ", limits::kTokenizerSteps,
                    " decoders");
  if (type == "Sequence") {
    const auto list = component.find("decoders");
    LOWBIT_CHECK_KIND(list != component.end() && list->is_array(), ErrorKind::kCorruptFile, origin,
                      ": decoder Sequence has no list \"decoders\"");
    for (const Json& element : *list) add(element, origin, depth + 1);
  } else if (type == "ByteLevel") {
    factories_.push_back(std::make_unique<Simple>(
        [](bool fused) { return whole_tokens(std::make_unique<ByteLevelStage>(), fused); }, true));
  } else if (type == "ByteFallback") {
    factories_.push_back(std::make_unique<Simple>(
        [](bool fused) { return whole_tokens(std::make_unique<ByteFallbackStage>(), fused); },
        false));
  } else if (type == "Fuse") {
    factories_.push_back(stateless<FuseStage>(true));
  } else if (type == "Replace") {
    factories_.push_back(replace(component, origin));
  } else if (type == "Strip") {
    factories_.push_back(strip(component, origin));
  } else if (type == "Metaspace") {
    factories_.push_back(metaspace(component, origin));
  } else {
    fail(ErrorKind::kUnsupported, origin, ": decoder \"", type,
         "\"; lowbit knows Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip");
  }
}

Decoder::Stream::~Stream() = default;
Decoder::Stream::Stream(Stream&&) noexcept = default;

Decoder::Stream::Stream(const Decoder& decoder) {
  bool fused = false;
  for (const auto& factory : decoder.factories_) {
    stages_.push_back(factory->stage(fused));
    fused = fused || factory->fuses();
    if (stages_.size() > 1) stages_[stages_.size() - 2]->next = stages_.back().get();
  }
  if (stages_.empty()) stages_.push_back(std::make_unique<FuseStage>());
}

void Decoder::Stream::push(std::string_view token, std::string& text) {
  stages_.back()->text = &text;
  stages_.front()->push(token);
}

void Decoder::Stream::finish(std::string& text) {
  stages_.back()->text = &text;
  for (const auto& stage : stages_) stage->finish();
}

}  // namespace lowbit
