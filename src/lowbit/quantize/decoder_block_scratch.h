// What DecoderBlock keeps between passes besides its weights; shared by its two source files.
#pragma once

#include <vector>

#include "lowbit/quantize/block_attention.h"
#include "lowbit/quantize/decoder_block.h"

namespace lowbit {

struct DecoderBlock::Scratch {
  explicit Scratch(ThreadPool& pool) : attention(pool) {}

  BlockAttention attention;
  // Gradients of one backward pass, [tokens][...].
  std::vector<float> residual;  // of h
  std::vector<float> normed;    // of a norm's output
  std::vector<float> attended;  // of o's input
  std::vector<float> q, k, v;
  std::vector<float> activated;  // of down's input
  std::vector<float> gate, up;
};

}  // namespace lowbit
