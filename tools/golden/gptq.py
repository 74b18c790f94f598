#!/usr/bin/env python3
"""tests/golden/quantize/gptq.safetensors: GPTQ in float64, column by column, from the paper.

Written from arXiv:2210.17323 with the plain inverse Hessian: no lazy updates, no reversed
factorization. numpy 2, safetensors 0.8.

usage: gptq.py [OUT]
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

ROWS, COLS, GROUP, TOKENS = 4, 96, 32, 104
DAMP = 0.01


def grid(group, bits, symmetric):
    """Scale (fp16) and zero of each row; group: [rows][columns]."""
    if symmetric:
        scale = 2 * np.abs(group).max(1) / (2**bits - 1)  # as the published program
        scale = scale.astype(np.float16).astype(np.float64)
        return scale, np.full(len(scale), 2.0 ** (bits - 1))
    low, high = np.minimum(group.min(1), 0), np.maximum(group.max(1), 0)
    scale = ((high - low) / (2**bits - 1)).astype(np.float16).astype(np.float64)
    return scale, np.round(-low / scale)


def gptq(weight, hessian, bits, symmetric, act_order, static_groups):
    w = weight.astype(np.float64).copy()
    h = hessian.copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    static = [grid(w[:, g : g + GROUP], bits, symmetric) for g in range(0, COLS, GROUP)]
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(COLS)
    w, h = w[:, order], h[order][:, order]
    h[np.arange(COLS), np.arange(COLS)] += DAMP * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    codes = np.zeros_like(w)
    scales, zeros = np.zeros((2, len(w), COLS // GROUP))
    margin = 1.0
    for i in range(COLS):
        if act_order and static_groups:
            g = order[i] // GROUP
            scales[:, g], zeros[:, g] = static[g]
        else:
            g = i // GROUP
            if i % GROUP == 0:
                scales[:, g], zeros[:, g] = grid(w[:, i : i + GROUP], bits, symmetric)
        exact = w[:, i] / scales[:, g]
        margin = min(margin, np.abs(np.abs(exact - np.floor(exact)) - 0.5).min())
        codes[:, i] = np.clip(np.round(exact) + zeros[:, g], 0, 2**bits - 1)
        rounded = scales[:, g] * (codes[:, i] - zeros[:, g])
        error = (w[:, i] - rounded) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
        w[:, i] = rounded
    inverse = np.argsort(order)
    # What the weight became, by input.
    return codes, scales, zeros, w[:, inverse], margin


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else (
        pathlib.Path(__file__).resolve().parents[2] / "tests/golden/quantize/gptq.safetensors")
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(COLS, COLS)) * rng.uniform(0.2, 2, COLS)
    x = (rng.normal(size=(TOKENS, COLS)) @ mix / 8).astype(np.float32)
    x[:, 17] = 0  # a dead column
    weight = rng.normal(size=(ROWS, COLS)).astype(np.float32) * 0.1
    hessian = x.astype(np.float64).T @ x.astype(np.float64)
    tensors = {"x": x, "weight": weight}
    for bits in (3, 4):
        for symmetric in (True, False):
            for name, act_order, static in (
                ("plain", False, False), ("order", True, False), ("static", True, True)):
                result = gptq(weight, hessian, bits, symmetric, act_order, static)
                key = f"w{bits}.{'sym' if symmetric else 'asym'}.{name}"
                tensors[key] = result[3].astype(np.float32)
                print(f"{key}: nearest tie {result[4]:.1e}")
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, out)


if __name__ == "__main__":
    main()
