#include "lowbit/tokenizer/token_bytes.h"

#include <charconv>
#include <optional>

#include "lowbit/tokenizer/byte_level.h"

namespace lowbit {

namespace {

// What the components of a decoder do to one token.
struct Decoding {
  bool byte_level = false;
  bool byte_fallback = false;
  std::vector<std::pair<std::string, std::string>> replace;
};

void read(const Json& component, Decoding& decoding) {
  if (!component.is_object()) return;
  const std::string type = component.value("type", "");
  if (type == "Sequence") {
    const auto decoders = component.find("decoders");
    if (decoders == component.end()) return;
    for (const Json& part : *decoders) read(part, decoding);
  } else if (type == "ByteLevel") {
    decoding.byte_level = true;
  } else if (type == "ByteFallback") {
    decoding.byte_fallback = true;
  } else if (type == "Metaspace") {
    decoding.replace.emplace_back(component.value("replacement", "\u2581"), " ");
  } else if (type == "Replace") {
    const auto pattern = component.find("pattern");
    if (pattern != component.end() && pattern->is_object() && pattern->contains("String")) {
      decoding.replace.emplace_back(pattern->value("String", ""), component.value("content", ""));
    }
  }
}

// "<0x0A>" is the byte 10.
std::optional<char> fallback_byte(const std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return std::nullopt;
  unsigned value = 0;
  const auto parsed = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (parsed.ec != std::errc() || parsed.ptr != piece.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  if (from.empty()) return text;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string bytes_of(std::string piece, const Decoding& decoding) {
  if (decoding.byte_fallback) {
    if (const auto byte = fallback_byte(piece)) return std::string(1, *byte);
  }
  for (const auto& [from, to] : decoding.replace) piece = replaced(std::move(piece), from, to);
  if (decoding.byte_level) {
    if (auto bytes = from_byte_level(piece)) return std::move(*bytes);
  }
  return piece;
}

}  // namespace

std::vector<std::string> token_bytes(const TokenizerSpec& spec) {
  Decoding decoding;
  read(spec.decoder, decoding);
  std::vector<std::string> bytes;
  for (const std::string& piece : spec.vocab) bytes.push_back(bytes_of(piece, decoding));
  for (const AddedToken& token : spec.added_tokens) {
    if (token.id < 0) continue;
    const auto id = static_cast<size_t>(token.id);
    if (id >= bytes.size()) bytes.resize(id + 1);
    bytes[id] = token.special ? "" : token.content;
  }
  return bytes;
}

}  // namespace lowbit
