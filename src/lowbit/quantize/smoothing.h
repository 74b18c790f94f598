// SmoothQuant's scales: how much of the inputs' size moves into the weights, and where it goes.
#pragma once

#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/input_statistics.h"

namespace lowbit {

// s_k = max|x_k|^alpha / max|w_k|^(1 - alpha), both maxima at least 1e-5, of the columns of a
// group's inputs. x_maxima: [cols]
std::vector<float> smoothing_scales(const BlockWeights& block, LinearGroup group,
                                    const std::vector<float>& x_maxima, double alpha);

// Divides the inputs of the group, kAttentionInput or kMlpInput, by the scales, in the norm before,
// and multiplies the weights' columns: the block computes the same.
void fold_smoothing(BlockWeights& block, LinearGroup group, const std::vector<float>& scales);

// How a weight's inputs are rounded when their columns lie between low and high: of static forms
// with their scale and zero point.
struct InputRounding;
InputRounding rounding_of(const QuantScheme& scheme, const std::vector<float>& low,
                          const std::vector<float>& high, const std::vector<float>& scales);

}  // namespace lowbit
