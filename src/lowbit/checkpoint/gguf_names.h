// GGUF's tensor names and row order against Hugging Face's, for Llama-class models (llama.cpp,
// gguf-py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lowbit {

// "blk.3.attn_q.weight" <-> "model.layers.3.self_attn.q_proj.weight", and so on for every weight,
// bias and norm. Empty if the other side has no such tensor.
std::string hf_tensor_name(const std::string& gguf_name);
std::string gguf_tensor_name(const std::string& hf_name);

// Whether files of architecture `arch` hold the rows of q_proj and k_proj (weights and biases) in
// the order of llama.cpp's rotation of neighbouring pairs: within each head, GGUF row 2i + r is HF
// row r * head_dim / 2 + i.
bool gguf_permutes_rows(const std::string& arch);

// The GGUF row of each HF row, and the reverse, for heads of `head_dim` (even) rows.
std::vector<int64_t> gguf_rows_in_hf_order(int64_t rows, int64_t head_dim);
std::vector<int64_t> hf_rows_in_gguf_order(int64_t rows, int64_t head_dim);

}  // namespace lowbit
