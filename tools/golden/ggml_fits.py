#!/usr/bin/env python3
"""How well ggml's own quantizers fit rows of weights, and its ternary and binary blocks of them.

Version: llama.cpp as in the sdist of llama-cpp-python 0.3.36. Usage: ggml_fits.py LIBGGML_BASE.SO
[OUT]; OUT defaults to tests/golden/quantize/ggml_fits.bin beside this script's repository.

File: u32 rows, u32 cols, rows x cols float32; then for each of Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and
IQ4_NL, as llama-quantize makes them without an importance matrix, the squared error of each row as
float64; then for each of TQ1_0, TQ2_0, Q2_0 and Q1_0 the blocks of all rows.
"""

import ctypes
import pathlib
import struct
import sys

import numpy as np

COLS = 512
FITTED = ("q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl")
EXACT = ("tq1_0", "tq2_0", "q2_0", "q1_0")


def rows():
    random = np.random.default_rng(11)
    made = [random.normal(0, 0.05, COLS), random.laplace(0, 0.03, COLS), random.standard_t(4, COLS) * 0.02]
    made.append(np.abs(made[0]) - 0.01)                                # nearly one-sided
    made.append(made[1] * np.repeat(2.0 ** random.integers(-6, 3, COLS // 16), 16))  # groups of many sizes
    made.append(np.where(random.random(COLS) < 0.02, 1.0, 0.01) * made[0])           # few outliers
    made.append(np.sign(made[0]) * (np.abs(made[0]) > 0.03) * 0.0625)  # ternary already
    made.append(np.sign(made[0]) * 0.0625)                             # binary already
    return np.array(made, dtype="<f4")


def main():
    library = ctypes.CDLL(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests/golden/quantize/ggml_fits.bin"
    values = rows()

    def blocks(kind, row):
        buffer = ctypes.create_string_buffer(4 * COLS)
        quantize = getattr(library, f"quantize_{kind}")  # (source, target, rows, columns, importance)
        quantize.restype = ctypes.c_size_t
        size = quantize(row.ctypes.data_as(ctypes.c_void_p), buffer, ctypes.c_int64(1), ctypes.c_int64(COLS), None)
        return buffer.raw[:size]

    def error(kind, row):
        read = np.zeros(COLS, dtype="<f4")
        getattr(library, f"dequantize_row_{kind}")(
            blocks(kind, row), read.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(COLS))
        return float(np.sum((read.astype("f8") - row) ** 2))

    with out.open("wb") as file:
        file.write(struct.pack("<2I", *values.shape) + values.tobytes())
        for kind in FITTED:
            file.write(struct.pack(f"<{len(values)}d", *(error(kind, row) for row in values)))
        for kind in EXACT:
            for row in values:
                file.write(blocks(kind, row))


if __name__ == "__main__":
    main()
