// What rounding does to the inputs of a linear, as values: every InputForm. The usual one, integers
// with a scale for each token, has codes that kernels multiply: input_codes.h.
#pragma once

#include <string>

#include "lowbit/tensor/qtensor.h"

namespace lowbit {

struct InputRounding {
  int bits = 0;  // 0: inputs stay as they are
  InputForm form = InputForm::kToken;
  bool floats = false;  // E4M3, not integers
  float scale = 0;      // of static forms
  int zero = 0;

  bool operator==(const InputRounding&) const = default;
  // As round_inputs() has it, whose codes integer kernels multiply.
  bool has_integer_codes() const { return bits != 0 && form == InputForm::kToken && !floats; }
};

InputRounding input_rounding(const QTensor& weight);

// "8 bits a token", "8 bits, static".
std::string name_of(const InputRounding& rounding);

// out = what the codes of x stand for; out may be x. For integers from `low` = -2^(bits-1) on:
//   token       round_inputs(), round_inputs_to_floats()
//   token zero  s = (max(x, 0) - min(x, 0)) / (2^bits - 1), z = round(low - min(x, 0) / s)
//   static      s and z of the checkpoint
//     out = s * (clamp(round(x / s + z), low, -low - 1) - z)
// and for E4M3 s = max|x| / 448 of a token or of 128 of its columns, or of the checkpoint, and
// out = s * e4m3(x / s), which saturates. Halves to even. NaN if an x of the token is not finite.
// As compressed-tensors has it, except that kToken's scale is max|x| / (2^(bits-1) - 1), as vLLM's
// kernels take it. bits: 2 to 8.
void round_input_values(const InputRounding& rounding, const float* x, int64_t cols, float* out);

}  // namespace lowbit
