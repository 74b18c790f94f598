// What a partial run must have in common with the run that goes on: input, options, program.
#pragma once

#include "lowbit/base/file.h"
#include "lowbit/base/json.h"
#include "lowbit/quantize/pipeline.h"

namespace lowbit {

// {"lowbit": version, "options": {...}, "model": {file name: {size, modified, sample}}}. `model` is
// a file or a folder; the sample is a hash of a file's ends and of places between them. With
// `calibration` (null for methods that need none), "calibration" holds the hash of its tokens and
// the instruction set, whose sums are its own.
Json fingerprint(const fs::path& model, const QuantizeOptions& options,
                 const CalibrationData* calibration = nullptr);

}  // namespace lowbit
