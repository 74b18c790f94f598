// QuantizeDevice: where methods compute if not on the host. A method is written once; for each of
// its heavy steps it asks the device, and the host's own code is the definition of right.
//
// Weights come as the checkpoint stores them and become fp32 on the device; results come back as
// QTensors in host memory. Everything is summed in one order: the same bytes in every run.
#pragma once

#include <memory>
#include <string>

#include "lowbit/quantize/method_options.h"
#include "lowbit/quantize/quantizer.h"
#include "lowbit/runtime/backend.h"

namespace lowbit {

// What gptq computes of linears that read the same inputs.
class GptqDevice {
 public:
  virtual ~GptqDevice() = default;
  // Adds x * x^T of the inputs x, [tokens][cols], in the backend's memory, to the Hessian. Inputs
  // are rounded to fp16, columns scaled by powers of two so that none leaves its range: what the
  // backend multiplies is rounded so too. Sums of some thousand tokens in fp32, of those in fp64.
  virtual void add(const Tensor& x) = 0;
  // The Hessian's factor, in fp64 as gptq_factor() makes it; nothing may be added after it. Returns
  // the damping that it took. Throws as gptq_factor().
  virtual double factor(const std::string& name, const GptqOptions& options) = 0;
  // As gptq_round() with that factor, to the bit.
  virtual QTensor round(const LinearJob& job, const QuantScheme& scheme,
                        const GptqOptions& options) = 0;
};

class QuantizeDevice {
 public:
  virtual ~QuantizeDevice() = default;
  // Through which calibration data flow.
  virtual Backend& backend() = 0;
  // As Rtn::quantize, to the bit, with its search or without.
  virtual QTensor rtn(const LinearJob& job, const QuantScheme& scheme, bool search) = 0;
  // As Hqq::quantize, to the bit where no error is so large that powers are taken of it (about a
  // fifth of a weight of 1).
  virtual QTensor hqq(const LinearJob& job, const QuantScheme& scheme) = 0;
  virtual std::unique_ptr<GptqDevice> gptq(int64_t cols) = 0;
  // Until all that was asked of it is done: who measures time needs it.
  virtual void wait() = 0;
};

// "cpu": null, methods compute on the host. "cuda": the first NVIDIA GPU. Throws kUnsupported
// listing the names there are, kDevice without a usable device.
std::unique_ptr<QuantizeDevice> make_quantize_device(const std::string& name, int threads);
std::unique_ptr<QuantizeDevice> make_cuda_quantize_device(int threads);

}  // namespace lowbit
