// A recipe: which methods `lowbit compare` runs with which options, and how it measures them.
//
//   name: Weight-only, 4 bits          # the report's title
//   description: ...                   # a paragraph under it
//   defaults: {bits: 4, group_size: 64}  # of every method
//   methods:                           # a row each; `name` is the method's unless said
//     - {method: gptq, name: gptq-asym, symmetric: false}
//   eval: {protocol: hf, context: 2048, chunks: -1, activations: f32}
//   divergence: {context: 512, chunks: 16}
//   speed: {prompt: 512, decode: 128, repetitions: 3, activations: default}
//   calibration: {samples: 128, seqlen: 2048, seed: -1}
#pragma once

#include <string>
#include <vector>

#include "lowbit/bench/latency.h"
#include "lowbit/eval/windows.h"
#include "lowbit/quantize/pipeline.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

struct RecipeMethod {
  std::string name;  // of the row and of its folder; is_plain_name()
  QuantizeOptions options;
};

struct Recipe {
  std::string name = "Comparison";
  std::string description;
  std::vector<RecipeMethod> methods;
  WindowOptions eval;  // of perplexity
  Activations eval_activations = Activations::kDefault;
  // What divergence and top-1 agreement are measured on; the source's logits are kept in a file of
  // about 2 bytes x vocabulary x context / 2 x chunks. The protocol is llama.cpp's.
  WindowOptions divergence = {.protocol = "llama.cpp", .context = 512, .chunks = 8};
  LatencyOptions speed = {.repetitions = 3};
  Activations speed_activations = Activations::kDefault;
};

// Parses and checks a recipe. Each override is "path=value" with a dotted path, as in
// "eval.context=512" or "methods.gptq-asym.bits=3" (the row's name), and a value in YAML. Errors
// are kInvalidArgument and begin with "origin:line:column: " or the override; an unknown key's
// names the possible ones.
Recipe parse_recipe(const std::string& text, const std::string& origin,
                    const std::vector<std::string>& overrides);
Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides);

// The text of a recipe of these methods, 4 bits each; for who names methods and no recipe.
std::string recipe_of(const std::vector<std::string>& methods);

// Keeps the rows of these names, or of these methods. Throws kInvalidArgument listing the rows.
void keep_methods(Recipe& recipe, const std::vector<std::string>& names);

// "default", "f32", "int8".
Activations parse_activations(const std::string& name);
const char* name_of(Activations activations);

}  // namespace lowbit
