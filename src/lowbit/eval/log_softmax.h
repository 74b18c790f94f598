// Probabilities of tokens under rows of logits. Exponentials in fp32, sums in fp64; a NaN among the
// logits makes the result NaN.
#pragma once

#include <cstdint>
#include <span>

namespace lowbit {

// log(sum(exp(logits)))
double log_sum_exp(std::span<const float> logits);

// log_sum_exp(logits) - logits[token]
double negative_log_likelihood(std::span<const float> logits, int32_t token);

// Kullback-Leibler divergence of softmax(logits) from a distribution of log-probabilities log_p:
// sum(exp(log_p) * (log_p - log_softmax(logits))), in nats. Words with log_p <= -16 are left out,
// as in llama.cpp.
double kl_divergence(std::span<const float> log_p, std::span<const float> logits);

}  // namespace lowbit
