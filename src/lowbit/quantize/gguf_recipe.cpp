#include "lowbit/quantize/gguf_recipe.h"

#include <charconv>
#include <utility>

#include "lowbit/base/check.h"
#include "lowbit/quantize/row_encoder.h"

namespace lowbit {

namespace {

constexpr GgufRecipe kRecipes[] = {
    {"q4_0", "Q4_0", 2, 4, true, 32},
    {"q4_1", "Q4_1", 3, 4, false, 32},
    {"q5_0", "Q5_0", 8, 5, true, 32},
    {"q5_1", "Q5_1", 9, 5, false, 32},
    {"q8_0", "Q8_0", 7, 8, true, 32},
    {"iq4_nl", "IQ4_NL", 25, 4, true, 32},
    {"q2_k", "Q2_K", 21, 2, false, 16},
    {"q3_k", "Q3_K", 11, 3, true, 16},
    {"q4_k", "Q4_K", 14, 4, false, 32},
    {"q5_k", "Q5_K", 16, 5, false, 32},
    {"q6_k", "Q6_K", 18, 6, true, 16},
    {"q2_k_m", "Q2_K", 10, 2, false, 16},
    {"q3_k_s", "Q3_K", 11, 3, true, 16},
    {"q3_k_m", "Q3_K", 12, 3, true, 16},
    {"q3_k_l", "Q3_K", 13, 3, true, 16},
    {"q4_k_s", "Q4_K", 14, 4, false, 32},
    {"q4_k_m", "Q4_K", 15, 4, false, 32},
    {"q5_k_s", "Q5_K", 16, 5, false, 32},
    {"q5_k_m", "Q5_K", 17, 5, false, 32},
    {"f16", "F16", 1, 16, true, 32},
    {"tq2_0", "TQ2_0", 37, 2, true, 0, "ternary"},
    {"tq1_0", "TQ1_0", 36, 2, true, 0, "ternary"},
    {"q2_0", "Q2_0", 41, 2, true, 0, "ternary"},
    {"q1_0", "Q1_0", 40, 1, true, 128, "int1"},
};

// In which of the model's blocks a mix replaces the usual type.
enum class Blocks { kAll, kFirstTwo, kFirstFour, kFirstSixteenth, kFirstEighth, kThird };

struct Exception {
  const char* recipe;
  const char* module;
  Blocks blocks;
  const char* type;
  bool shared_keys = false;  // only where four queries or more share a key
};
// llama.cpp's llama_tensor_get_type(); first match wins.
constexpr Exception kExceptions[] = {
    {"q2_k_m", "v_proj", Blocks::kAll, "Q4_K", true},
    {"q2_k_m", "v_proj", Blocks::kAll, "Q3_K"},
    {"q2_k_m", "o_proj", Blocks::kAll, "Q3_K"},
    {"q2_k_m", "down_proj", Blocks::kAll, "Q3_K"},
    {"q3_k_m", "v_proj", Blocks::kFirstTwo, "Q5_K"},
    {"q3_k_m", "v_proj", Blocks::kAll, "Q4_K"},
    {"q3_k_m", "o_proj", Blocks::kAll, "Q4_K"},
    {"q3_k_m", "down_proj", Blocks::kFirstSixteenth, "Q5_K"},
    {"q3_k_m", "down_proj", Blocks::kAll, "Q4_K"},
    {"q3_k_l", "v_proj", Blocks::kAll, "Q5_K"},
    {"q3_k_l", "o_proj", Blocks::kAll, "Q5_K"},
    {"q3_k_l", "down_proj", Blocks::kAll, "Q5_K"},
    {"q4_k_s", "v_proj", Blocks::kFirstFour, "Q5_K"},
    {"q4_k_s", "down_proj", Blocks::kFirstEighth, "Q5_K"},
    {"q4_k_m", "v_proj", Blocks::kThird, "Q6_K"},
    {"q4_k_m", "down_proj", Blocks::kThird, "Q6_K"},
    {"q5_k_m", "v_proj", Blocks::kThird, "Q6_K"},
    {"q5_k_m", "down_proj", Blocks::kThird, "Q6_K"},
};

bool contains(Blocks blocks, int64_t index, int64_t count) {
  switch (blocks) {
    case Blocks::kAll:
      return true;
    case Blocks::kFirstTwo:
      return index < 2;
    case Blocks::kFirstFour:
      return index < 4;
    case Blocks::kFirstSixteenth:
      return index < count / 16;
    case Blocks::kFirstEighth:
      return index < count / 8;
    case Blocks::kThird:  // and the first and the last eighth: "use more bits"
      return index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2;
  }
  return false;
}

// "model.layers.3.mlp.down_proj" is in block 3.
int64_t block_of(const std::string& module) {
  const std::string prefix = "model.layers.";
  int64_t index = 0;
  if (module.starts_with(prefix)) {
    std::from_chars(module.data() + prefix.size(), module.data() + module.size(), index);
  }
  return index;
}

std::string mixed_type(const GgufRecipe& recipe, const PlanItem& item, const ModelConfig& config) {
  const bool embedding = item.name == "model.embed_tokens";
  // The matrix that makes the logits.
  if (item.name == "lm_head" || (embedding && config.tie_word_embeddings)) return "Q6_K";
  if (embedding) return recipe.type;
  const int64_t sharing = config.num_attention_heads / config.num_key_value_heads;
  std::string type = recipe.type;
  for (const Exception& row : kExceptions) {
    if (row.recipe != std::string_view(recipe.name) || !item.name.ends_with(row.module) ||
        !contains(row.blocks, block_of(item.name), config.num_hidden_layers) ||
        (row.shared_keys && sharing < 4)) {
      continue;
    }
    type = row.type;
    break;
  }
  // Models of 70B share values among eight heads, so these cost next to nothing.
  const bool is_70b = config.num_hidden_layers == 80 && sharing > 1;
  if (is_70b && item.name.ends_with("v_proj") && (type == "Q3_K" || type == "Q4_K")) return "Q5_K";
  return type;
}

}  // namespace

std::span<const GgufRecipe> gguf_recipes() { return kRecipes; }

std::string gguf_recipe_names(const std::string& method) {
  std::string names;
  for (const GgufRecipe& recipe : kRecipes) {
    if (method == recipe.method) names += concat(names.empty() ? "" : ", ", recipe.name);
  }
  return names;
}

const GgufRecipe& gguf_recipe(const std::string& name) {
  for (const GgufRecipe& recipe : kRecipes) {
    if (name == recipe.name) return recipe;
  }
  fail(ErrorKind::kInvalidArgument, "lowbit cannot write gguf:", name, "; it can write gguf: with ",
       gguf_recipe_names("rtn"), ", and by methods of their own ", gguf_recipe_names("ternary"),
       ", ", gguf_recipe_names("int1"));
}

std::string wanted_ggml_type(const GgufRecipe& recipe, const PlanItem& item,
                             const ModelConfig& config) {
  const bool in_block = item.kind == PlanItem::Kind::kLinear && item.name != "lm_head";
  if (in_block && !item.quantize) return "F16";
  if (recipe.mix) return mixed_type(recipe, item, config);
  // Embedding and head cost little and matter much.
  return in_block || item.quantize || recipe.bits == 16 ? recipe.type : "Q8_0";
}

std::string ggml_type_for_columns(const std::string& type, int64_t cols) {
  constexpr std::pair<const char*, const char*> kSubstitutes[] = {
      {"Q4_K", "Q5_0"}, {"Q5_K", "Q5_1"},   {"Q6_K", "Q8_0"},  {"Q2_K", "Q4_0"},
      {"Q3_K", "Q4_0"}, {"TQ1_0", "TQ2_0"}, {"TQ2_0", "Q2_0"}, {"Q1_0", "Q2_0"},
  };
  std::string fitting = type;
  for (const auto& [of, substitute] : kSubstitutes) {
    if (fitting == of && cols % row_encoder(of).block_elems != 0) fitting = substitute;
  }
  return cols % row_encoder(fitting).block_elems == 0 ? fitting : "F16";
}

}  // namespace lowbit
