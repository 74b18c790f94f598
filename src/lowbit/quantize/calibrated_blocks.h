// CalibratedBlocks: drives a BlockQuantizer through a model. It holds the calibration activations
// and moves them from block to block, through the original weights, through what was written, or
// both.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lowbit/quantize/block_quantizer.h"
#include "lowbit/quantize/calibration.h"
#include "lowbit/quantize/decoder_block.h"
#include "lowbit/quantize/device_blocks.h"
#include "lowbit/quantize/learning.h"
#include "lowbit/quantize/output.h"
#include "lowbit/quantize/refine.h"
#include "lowbit/quantize/work_folder.h"

namespace lowbit {

// The embedding's matrix; release it when done.
LinearWeight load_embedding(const Checkpoint& checkpoint, const ModelConfig& config);

// What the embedding makes of each sample, to each of `states`.
void embed_samples(const Checkpoint& checkpoint, const ModelConfig& config,
                   const CalibrationData& data, const std::vector<HiddenStates*>& states,
                   ThreadPool& pool);

class CalibratedBlocks {
 public:
  // The references outlive this object. `data` is empty if the method needs none.
  CalibratedBlocks(const OutputJob& job, Output& output, WorkFolder& work,
                   const CalibrationData& data);

  using Report = std::function<void(double done, const std::string& note)>;
  // Writes block `index`, whose plan is `unit`, to a part. Blocks come in order.
  Part write(const PlanUnit& unit, int64_t index, const Report& report);
  // Moves the activations past block `index`, finished by this run or an earlier one. What it
  // computes depends on the finished part only, so that a resumed run sees the same.
  void advance(const PlanUnit& unit, int64_t index);

  // For methods that refine: write() makes drafts, from which refine() goes on when all blocks have
  // been written and passed, and write_refined() makes the parts.
  void refine(const std::vector<PlanUnit>& drafts, const Report& report);
  Part write_refined(const PlanUnit& unit, int64_t index);

  bool refines() const { return refines_; }
  const std::vector<std::string>& notices() const { return notices_; }

 private:
  std::unique_ptr<HiddenStates> make_states(const char* name) const;
  void run(BlockWeights weights, const HiddenStates& from, HiddenStates& to);
  BlockSchemes schemes_of(const PlanUnit& unit, int64_t index) const;
  void note(const std::string& message);
  Part write_on_device(const PlanUnit& unit, int64_t index, const Report& report);
  void write_block(const PlanUnit& unit, const BlockWeights& block, const BlockResult& result,
                   PartWriter& part);

  const OutputJob& job_;
  Output& output_;
  WorkFolder& work_;
  const CalibrationData& data_;
  bool refines_;
  std::unique_ptr<Learning> learning_;
  std::unique_ptr<BlockQuantizer> quantizer_;
  CalibrationNeeds needs_;
  int64_t samples_, tokens_;
  bool spill_ = false;
  std::shared_ptr<const RopeTables> rope_;
  // What enters the next block; null if the method does not ask for it.
  std::unique_ptr<HiddenStates> quantized_, original_;
  // What the next block makes of its original input. Without original_input the original path is
  // kept here alone, and is a block ahead while the method runs. Methods that ask for room for
  // the output fill it themselves.
  std::unique_ptr<HiddenStates> target_;
  int64_t target_index_ = -1;  // of the block whose output target_ holds
  std::unique_ptr<Refinement> refinement_;
  std::unique_ptr<DeviceBlocks> on_device_;  // null: everything is on the host
  std::vector<std::string> notices_;
};

}  // namespace lowbit
