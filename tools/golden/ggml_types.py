"""Golden blocks of the ggml types that lowbit reads and the gguf package too, with the values the gguf package gives them.

Versions: gguf 0.19.0, numpy 2.4.6. Usage: ggml_types.py [OUT]; OUT defaults to
tests/golden/checkpoint/ggml_types.bin beside this script's repository.

File: for each type, u32 ggml type, u32 rows, u32 cols, u32 block bytes, the blocks, then
rows x cols float32. Blocks are random bytes (every bit pattern of codes and packed scales is
legal); only the fp16 scales are drawn from ordinary numbers.
"""

import pathlib
import struct
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Byte offsets of the fp16 fields in a block.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.TQ1_0: [52], T.TQ2_0: [64],
}


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/checkpoint/ggml_types.bin"
    out.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    with out.open("wb") as file:
        for kind, halves in HALVES.items():
            elems, size = GGML_QUANT_SIZES[kind]
            blocks = random.integers(0, 256, (2, 256 // elems, size), dtype=np.uint8)
            for offset in halves:
                values = random.normal(0, 0.05, blocks.shape[:2]).astype("<f2")
                blocks[..., offset:offset + 2] = values[..., None].view(np.uint8)
            rows = np.ascontiguousarray(blocks.reshape(2, -1))
            values = dequantize(rows, kind).astype("<f4")
            file.write(struct.pack("<4I", int(kind), 2, 256, rows.nbytes))
            file.write(rows.tobytes())
            file.write(values.tobytes())


if __name__ == "__main__":
    main()
