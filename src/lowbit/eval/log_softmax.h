// Negative log-likelihood of one token under a row of logits.
#pragma once

#include <cstdint>
#include <span>

namespace lowbit {

// log(sum(exp(logits))) - logits[token]: exponentials in fp32, summed in fp64. NaN if a logit is.
double negative_log_likelihood(std::span<const float> logits, int32_t token);

}  // namespace lowbit
