// How far to smooth the inputs of a group of linears: SmoothQuant's alpha, chosen by what rounding
// weights and inputs then costs.
#pragma once

#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/input_statistics.h"

namespace lowbit {

// Tokens that the search looks at.
constexpr int64_t kSmoothTokens = 512;

// s_k = max|x_k|^alpha / max|w_k|^(1 - alpha), both maxima at least 1e-5, of the columns of a
// group's inputs. Where o_proj's come from a v_proj of fewer heads, heads that share one have the
// same scales. x_maxima: [cols]
std::vector<float> smoothing_scales(const BlockWeights& block, LinearGroup group,
                                    const std::vector<float>& x_maxima, double alpha);

// The scales, of alphas from 0 to 0.95 and of no smoothing, for which the group's rounded weights
// times rounded inputs are closest to the exact outputs: the mean over tokens of the squared error
// over the output's own square, so that a few huge tokens do not decide.
std::vector<float> search_smoothing(const BlockJob& job, LinearGroup group,
                                    const InputSamples& inputs);

// Divides the inputs of the group by the scales, in the norm or linear before, and multiplies the
// weights' columns: the block computes the same.
void fold_smoothing(BlockWeights& block, LinearGroup group, const std::vector<float>& scales);

// How a weight's inputs are rounded when their columns lie between low and high: of static forms
// with their scale and zero point.
struct InputRounding;
InputRounding rounding_of(const QuantScheme& scheme, const std::vector<float>& low,
                          const std::vector<float>& high, const std::vector<float>& scales);

}  // namespace lowbit
