#!/usr/bin/env python3
"""Golden blocks of the small ggml types that lowbit writes, made by libggml's reference quantizers.

Version: llama.cpp as in the sdist of llama-cpp-python 0.3.36. Usage: ggml_encode.py LIBGGML_BASE.SO
[OUT]; OUT defaults to tests/golden/quantize/ggml_encode.bin beside this script's repository.

File: for Q4_0, Q4_1, Q8_0, F16, Q5_0, Q5_1: u32 rows, u32 cols, then for each row its float32 values and its
bytes.
"""

import ctypes
import pathlib
import struct
import sys

import numpy as np

COLS = 64
BLOCK = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}


def rows():
    random = np.random.default_rng(5)
    made = [random.normal(0, 0.05, COLS) for _ in range(8)]
    made += [random.integers(-8, 8, COLS) * 0.0625]           # halves and ties
    made += [np.abs(made[0]), -np.abs(made[0]), np.full(COLS, 0.3), np.zeros(COLS)]
    made += [made[0] * 1e-7, made[0] * 1e4, np.eye(1, COLS, 5)[0]]
    return np.array(made, dtype="<f4")


def main():
    library = ctypes.CDLL(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests/golden/quantize/ggml_encode.bin"
    out.parent.mkdir(parents=True, exist_ok=True)
    values = rows()
    with out.open("wb") as file:
        for kind in ("q4_0", "q4_1", "q8_0", "f16", "q5_0", "q5_1"):
            file.write(struct.pack("<2I", *values.shape))
            for row in values:
                if kind == "f16":
                    made = row.astype("<f2").tobytes()
                else:
                    buffer = ctypes.create_string_buffer(COLS // 32 * BLOCK[kind])
                    quantize = getattr(library, f"quantize_row_{kind}_ref")
                    quantize(row.ctypes.data_as(ctypes.c_void_p), buffer, ctypes.c_int64(COLS))
                    made = buffer.raw
                file.write(row.tobytes() + made)


if __name__ == "__main__":
    main()
