// The configuration of the small Llama that golden files of whole models hold
// (tools/golden/mixq.py, aqlm_linears.py).
#pragma once

#include "lowbit/base/json.h"

namespace lowbit::test {

inline Json golden_llama_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 48},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

}  // namespace lowbit::test
