#include "lowbit/jinja/meter.h"

#include "lowbit/base/limits.h"
#include "lowbit/jinja/error.h"

namespace lowbit::jinja {

namespace {
thread_local Meter* current_meter = nullptr;
}  // namespace

const uint64_t Meter::kStepLimit = limits::kTemplateSteps;
const int Meter::kDepthLimit = limits::kTemplateDepth;
const size_t Meter::kMemoryLimit = limits::kTemplateMemoryBytes;

Meter::Meter() : outer_(current_meter) { current_meter = this; }

Meter::~Meter() { current_meter = outer_; }

Meter* Meter::current() { return current_meter; }

// Counters stay at their limit or above, so that nothing in the template can continue.

void Meter::exceeded_steps() {
  refuse("the template takes more than ", kStepLimit, " steps to render");
}

void Meter::exceeded_depth() {
  --depth_;
  refuse("the template recurses deeper than ", kDepthLimit, " levels");
}

void Meter::exceeded_memory(size_t bytes) {
  live_bytes_ -= bytes;
  refuse("the template needs more than ", kMemoryLimit / limits::kMiB, " MiB of memory");
}

}  // namespace lowbit::jinja
