"""MixQ's q_weight in the layouts of its kernels, made step by step as its programs make it.

Versions: numpy 2.4, safetensors 0.8.0.
Usage: mixq_copies.py [OUT]; OUT defaults to tests/golden/formats/mixq_copies.safetensors.

  codes8 [N][K], codes4 [N][K]         signed integers
  eetq.q_weight [K][N]                 codes8 as EETQ preprocesses them for a mixed GEMM (sm80)
  nibbles.q_weight [N][K/8]            codes4 as QComplier packs them
  *.q_scale_col                        scales
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

N, K = 64, 192


def permute_rows(matrix):
    """Of every 16 rows of [K][N], the order in which a tensor core's threads read them."""
    order = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    return matrix.reshape(-1, 16, matrix.shape[1])[:, order].reshape(matrix.shape)


def interleave_columns(columns):
    """Two columns alternate by 64 rows: [N][K] to [N/2][K/64][2][64]."""
    n, k = columns.shape
    return columns.reshape(n // 2, 2, k // 64, 64).transpose(0, 2, 1, 3)


def eetq(codes):
    """[N][K] of int8 to the bytes that stand for [K][N]."""
    columns = permute_rows(codes.T.copy()).T.copy()
    flat = interleave_columns(columns).reshape(-1, 4)
    biased = (flat.astype(np.int32) + 128).astype(np.uint8)
    return biased[:, [0, 2, 1, 3]].reshape(codes.shape[1], codes.shape[0]).view(np.int8)


def nibbles(codes):
    fields = (codes.astype(np.int32) + 8).astype(np.uint32)
    order = np.concatenate([np.array([0, 2, 4, 6, 1, 3, 5, 7]) + 8 * i
                            for i in range(codes.shape[1] // 8)])
    fields = fields[:, order]
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for i in range(8):
        words |= fields[:, i::8] << np.uint32(4 * i)
    return words.view(np.int32)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/mixq_copies.safetensors"
    random = np.random.default_rng(5)
    codes8 = random.integers(-128, 128, (N, K)).astype(np.int8)
    codes4 = random.integers(-8, 8, (N, K)).astype(np.int8)
    scales = random.uniform(0.01, 0.1, N).astype(np.float16)
    save_file({"codes8": codes8, "codes4": codes4,
               "eetq.q_weight": eetq(codes8), "eetq.q_scale_col": scales,
               "nibbles.q_weight": nibbles(codes4), "nibbles.q_scale_col": scales[None]}, str(out))


if __name__ == "__main__":
    main()
