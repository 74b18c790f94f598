#include "lowbit/checkpoint/gguf_pretokenizers.h"

#include <span>

#include "lowbit/tokenizer/pattern.h"

namespace lowbit {

namespace {

// GPT-2's expression where the white space that it leaves over is cut by what surrounds it.
constexpr char kGpt2Inner[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr char kQwen35[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
                           R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kTekken[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kO200k[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kBailing[] =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr char kSeedCoder[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|)"
                              R"( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kBloom[] = " ?[^(\\s|.,!?…。，、।۔،)]+";
constexpr char kDeepseekHan[] = "[一-龥ࠀ-一가-\xED\x9F\xBF]+";
// Letters with case, of the Unicode version that its authors had.
constexpr char kDeepseekLetters[] =
    "\\s?["
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-"
    "ჅᎠ-"
    "Ᏽᏸ-"
    "ᏽᲐ"
    "-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-"
    "ῌῐ-"
    "ΐῖ-"
    "Ίῠ-"
    "Ῥῲ-"
    "ῴῶ-"
    "ῼℂ"
    "ℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-"
    "ꝯꝱ-"
    "ꞇꞋ-"
    "ꞎꭰ-"
    "ꮿﬀ-"
    "ﬆﬓ-"
    "ﬗＡ-"
    "Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
    "]+";
constexpr char kDeepseekPunctuation[] = "\\s?[!-/:-~！-／：-～‘-‟　-。]+";
constexpr char kDeepseekV3[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json split(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

Json punctuation() { return {{"type", "Punctuation"}, {"behavior", "Contiguous"}}; }

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json sequence(std::vector<Json> steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

std::vector<GgufPreTokenizer> make_table() {
  const Json gpt2 = byte_level(true);
  const Json llama3 = sequence({split(kLlama3Regex), byte_level(false)});
  const Json qwen2 = sequence({split(kQwen2Regex), byte_level(false)});
  return {
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
                 "lfm2", "jina-v5-nano"},
       .pre_tokenizer = llama3,
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"dbrx", "smaug-bpe", "chatglm-bpe"}, .pre_tokenizer = llama3},
      {.names = {"glm4"}, .pre_tokenizer = llama3, .ignore_merges = true},
      {.names = {"starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       .pre_tokenizer = sequence({digits(true), byte_level(true)})},
      {.names = {"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat",
                 "mellum", "jais"},
       .pre_tokenizer = gpt2},
      // SmolLM's tokenizer.json, and llama.cpp, cut out digits first. transformers does not when it
      // reads a GGUF file, and the figures we compare with were made so; only white space before
      // a digit can tell the two apart.
      {.names = {"smollm"}, .pre_tokenizer = gpt2},
      {.names = {"olmo", "mpt", "modern-bert"}, .pre_tokenizer = gpt2, .nfc = true},
      {.names = {"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"},
       .pre_tokenizer = qwen2,
       .nfc = true},
      {.names = {"grok-2", "hunyuan"}, .pre_tokenizer = qwen2},
      {.names = {"qwen35"},
       .pre_tokenizer = sequence({split(kQwen35), byte_level(false)}),
       .nfc = true},
      {.names = {"deepseek-llm"},
       .pre_tokenizer =
           sequence({split(R"([\r\n])"), split(kDeepseekLetters), split(kDeepseekPunctuation),
                     split(R"(\s+$)"), split(kDeepseekHan), digits(false), byte_level(false)})},
      {.names = {"deepseek-coder"},
       .pre_tokenizer = sequence({split(R"([\r\n])"), split(R"(\s?\p{L}+)"), split(R"(\s?\p{P}+)"),
                                  split(kDeepseekHan), digits(true), byte_level(false)})},
      {.names = {"deepseek-v3", "hunyuan-dense"},
       .pre_tokenizer = sequence({split(R"(\p{N}{1,3})"), split("[一-龥\u3040-ゟ゠-ヿ]+"),
                                  split(kDeepseekV3), byte_level(false)})},
      {.names = {"tekken"},
       .pre_tokenizer = sequence({split(kTekken), byte_level(false)}),
       .ignore_merges = true},
      {.names = {"gpt-4o", "llama4", "kanana2"},
       .pre_tokenizer = sequence({split(kO200k), byte_level(false)})},
      {.names = {"falcon"},
       .pre_tokenizer =
           sequence({punctuation(), byte_level(true), digits(false), split("[0-9][0-9][0-9]")})},
      {.names = {"bloom", "poro-chat", "gpt3-finnish"},
       .pre_tokenizer = sequence({split(kBloom), byte_level(false)})},
      {.names = {"bailingmoe", "bailingmoe2", "llada-moe"},
       .pre_tokenizer = sequence({split(kBailing), byte_level(false)})},
      {.names = {"seed-coder"}, .pre_tokenizer = sequence({split(kSeedCoder), byte_level(false)})},
      {.names = {"default"},
       .pre_tokenizer =
           sequence({split(R"([\p{P}\$\+<=>\^~\|]+)"), split(kGpt2Inner), split(R"(\p{N}+)"),
                     split("[0-9][0-9][0-9]"), byte_level(false)})},
  };
}

// The same component with defaults spelled out and what does not change the pieces left out.
void flatten(const Json& component, Json& out) {
  const std::string type = component.is_object() ? component.value("type", "") : "";
  const auto list = component.find("pretokenizers");
  if (type == "Sequence" && list != component.end() && list->is_array()) {
    for (const Json& element : *list) flatten(element, out);
    return;
  }
  Json copy = component;
  if (copy.is_object()) copy.erase("trim_offsets");
  if (type == "Split" && !copy.contains("invert")) copy["invert"] = false;
  if (type == "ByteLevel" && !copy.contains("use_regex")) copy["use_regex"] = true;
  out.push_back(std::move(copy));
}

Json flattened(const Json& component) {
  Json out = Json::array();
  flatten(component, out);
  return out;
}

}  // namespace

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers() {
  static const std::vector<GgufPreTokenizer> table = make_table();
  return table;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer(const std::string& name) {
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers()) {
    for (const std::string& known : row.names) {
      if (known == name) return &row;
    }
  }
  return nullptr;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges,
                                                bool nfc) {
  const Json wanted = flattened(pre_tokenizer);
  const GgufPreTokenizer* found = nullptr;
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers()) {
    if (row.ignore_merges != ignore_merges || flattened(row.pre_tokenizer) != wanted) continue;
    if (row.nfc == nfc) return &row;
    if (found == nullptr) found = &row;
  }
  return found;
}

}  // namespace lowbit
