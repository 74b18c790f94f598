// DeviceBlocks: the blocks of a model, one after another, on a QuantizeDevice, whose memory holds
// the calibration activations.
#pragma once

#include <functional>
#include <vector>

#include "lowbit/quantize/backend_block.h"
#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/quantize_device.h"
#include "lowbit/quantize/refine.h"

namespace lowbit {

// A block on a device, for a method: in BlockJob. Then the weights of BlockJob's block are empty.
struct DeviceBlock {
  QuantizeDevice& device;
  const std::array<LinearWeight, kBlockLinears>& weights;  // as stored
  // Shows what the linears get from all of the calibration data.
  std::function<void(const BackendBlock::Observer& observer)> run;
};

class DeviceBlocks {
 public:
  // The references outlive this object.
  DeviceBlocks(QuantizeDevice& device, const Checkpoint& checkpoint, const ModelConfig& config,
               const CalibrationData& data, ThreadPool& pool);

  // What the method makes of the block. `weights`: its linears as stored.
  BlockResult quantize(const BlockQuantizer& quantizer, int64_t index,
                       const std::array<LinearWeight, kBlockLinears>& weights,
                       const BlockSchemes& schemes,
                       const std::function<void(double, const std::string&)>& progress,
                       const std::function<void(const std::string&)>& notice);
  // Moves the activations past block `index`, as `written` holds it. Returns before it is done.
  void advance(const Checkpoint& written, int64_t index);

 private:
  // Passes of some sequences at a time, in order.
  void for_passes(const std::function<void(Tensor& states)>& body);
  std::vector<int32_t> tokens_of(int64_t first, int64_t count) const;

  QuantizeDevice& device_;
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const CalibrationData& data_;
  ThreadPool& pool_;
  std::unique_ptr<Learning> learning_;  // on the host, for who asks
  int64_t samples_, length_, most_;     // most_: sequences of a pass
  SequencePass pass_;
  std::vector<Tensor> states_;  // of each pass, what enters the next block
};

}  // namespace lowbit
