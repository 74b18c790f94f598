// Options of commands that look at what flows through a model.
#pragma once

#include <CLI/CLI.hpp>

#include "lowbit/quantize/pipeline.h"

namespace lowbit::app {

// --calibration, --samples, --seqlen, --seed
void add_calibration_text_options(CLI::App& sub, CalibrationOptions& calibration);
// --memory, and what each calibrated method lets one choose.
void add_calibration_method_options(CLI::App& sub, QuantizeOptions& options);

// --backend: where methods compute.
void add_quantize_backend_option(CLI::App& sub, QuantizeOptions& options);

}  // namespace lowbit::app
