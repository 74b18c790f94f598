// Linear layers of the CUDA backend.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowbit/runtime/backend.h"
#include "lowbit/runtime/cuda/device.h"
#include "lowbit/runtime/cuda/layouts.h"
#include "lowbit/runtime/cuda/product_chain.h"
#include "lowbit/runtime/cuda/step.h"

namespace lowbit::cuda {

// What the linears of a backend share. Inputs are prepared in scratch memory, one forward at a
// time.
struct LinearEnvironment {
  cudaStream_t stream = nullptr;
  int processors = 0;
  int shared_bytes = 0;         // of a block of threads, at most
  bool wgmma = false;           // the device has it, and the build code for it
  bool rounded = false;         // linear_rounded may be used
  bool exact = false;           // inputs as values and remainders
  std::string forced_layout;    // LOWBIT_LINEAR, or empty
  std::string forced_kernel;    // LOWBIT_CUDA_LINEAR: "stream" (where it can), "tile" (mma.sync
                                // alone), "wgmma" (where many tokens are), or empty
  ProductChain chain;           // of the step
  KnownIds tokens, logit_rows;  // of the step
  Scratch prepared{"inputs in 16 bits"}, row_scales{"scales of inputs"};
  Scratch group_sums{"sums of inputs"}, ids{"ids"};
  Scratch partials{"partial sums"};
  Scratch plain_codes{"rounded inputs"}, plain_scales{"scales of rounded inputs"};

  // `ids` in device memory: those of the step, or a copy.
  const int32_t* device_ids(std::span<const int32_t> host);
  // Zeros, which kernels leave so; as many for each call.
  int32_t* zeroed_flags(int count);

 private:
  std::shared_ptr<void> flags_;
};

// Packs the parts, neighbours of one scheme together, and frees their codes on the way. Throws
// kInvalidArgument if they do not fit together, kUnsupported if the forced layout cannot hold one.
std::unique_ptr<Linear> make_cuda_linear(std::vector<LinearWeight> parts,
                                         std::shared_ptr<LinearEnvironment> environment);

}  // namespace lowbit::cuda
