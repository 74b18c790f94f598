// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): moves the size of activations into weights, so
// that both fit 8 bits. For each column j of the inputs of q, k, v and of gate, up
//
//   s_j = max|x_j|^alpha / max|w_j|^(1 - alpha)        norm_j /= s_j,  w_j *= s_j
//
// with both maxima at least 1e-5. Weights then get 8 bits and one scale a row; whoever runs the
// model rounds activations to 8 bits, token by token or (InputForm::kStatic) by one scale.
#pragma once

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/method_options.h"

namespace lowbit {

class SmoothQuant final : public BlockQuantizer {
 public:
  explicit SmoothQuant(const SmoothQuantOptions& options) : options_(options) {}

  // Nothing if the options bring activation scales.
  CalibrationNeeds needs() const override;
  // Throws kInvalidArgument too for static inputs with zero points and no calibration data.
  BlockResult quantize(BlockJob& job) const override;

 private:
  SmoothQuantOptions options_;
};

}  // namespace lowbit
