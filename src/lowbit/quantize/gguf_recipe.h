// What `--format gguf:NAME` writes: a ggml type for each matrix of a model.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "lowbit/model/config.h"
#include "lowbit/quantize/plan.h"

namespace lowbit {

struct GgufRecipe {
  const char* name;    // "q4_k_m"
  const char* type;    // of most linears: "Q4_K"
  uint32_t file_type;  // llama.cpp's llama_ftype, for people
  int bits;
  bool symmetric;
  int64_t group_size;  // weights that share a scale; 0: the user's choice
  // --method. The types fit blocks to the weights themselves ("rtn", and "rtn-search" for those
  // whose reference quantizers do not search), or hold what others make without loss; those of 4, 5
  // and 8 bits in blocks of 32 hold the integers of every method.
  const char* method = "rtn";
  bool mix = std::string_view(name).ends_with("_s") || std::string_view(name).ends_with("_m") ||
             std::string_view(name).ends_with("_l");
};

// Bare names put one type into all linears and 8 bits into embedding and head; names that end in
// _s, _m or _l assign types as llama-quantize does for the file type of that name (q2_k_m: for
// Q2_K).
std::span<const GgufRecipe> gguf_recipes();
// Those of a method: "q4_0, q4_1, ..."
std::string gguf_recipe_names(const std::string& method);
// Throws kInvalidArgument listing the names.
const GgufRecipe& gguf_recipe(const std::string& name);

// The type that the recipe means for a matrix, whatever its columns; F16 for a linear of a block
// that is not to be quantized.
std::string wanted_ggml_type(const GgufRecipe& recipe, const PlanItem& item,
                             const ModelConfig& config);
// `type`, or what llama.cpp puts in its place where blocks do not divide the columns: Q4_K becomes
// Q5_0, Q5_K Q5_1, Q6_K Q8_0, Q2_K and Q3_K Q4_0. Ternary and binary types become one another,
// which loses nothing. In the end F16.
std::string ggml_type_for_columns(const std::string& type, int64_t cols);

}  // namespace lowbit
