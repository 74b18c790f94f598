// Decoders of tokenizer.json: ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence.
// All of them work on a stream, so that decoding at once and piece by piece cannot differ.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/base/json.h"

namespace lowbit {

class Decoder {
 public:
  // `component` is tokenizer.json's "decoder" (null: tokens are joined by spaces). Throws
  // kUnsupported naming one that lowbit does not know.
  Decoder(const Json& component, const std::string& origin);
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  class Stage;
  class Factory;
  // The state of one stream; the decoder must outlive it.
  class Stream {
   public:
    explicit Stream(const Decoder& decoder);
    ~Stream();
    Stream(Stream&&) noexcept;
    // Appends to `text` what this token completes: whole characters.
    void push(std::string_view token, std::string& text);
    void finish(std::string& text);

   private:
    std::vector<std::unique_ptr<Stage>> stages_;
  };

 private:
  void add(const Json& component, const std::string& origin, int depth);
  std::vector<std::unique_ptr<Factory>> factories_;
};

}  // namespace lowbit
