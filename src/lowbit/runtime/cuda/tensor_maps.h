// Descriptions of memory for bulk tensor copies.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include <cstdint>

namespace lowbit::cuda {

// The driver's function, found at run time: programs link no driver. Null before sm_90. Throws
// kDevice.
PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder();

// [rows][row_bytes], copied as boxes of box_rows x box_bytes, zeros behind the last row: all in
// multiples of 16 bytes, a box at most 2048 wide. Throws kDevice. Empty for devices before sm_90.
CUtensorMap map_of_bytes(const void* data, int64_t rows, int64_t row_bytes, int box_rows,
                         int box_bytes);

}  // namespace lowbit::cuda
