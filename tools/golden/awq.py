#!/usr/bin/env python3
"""tests/golden/quantize/awq.safetensors: AWQ of one tiny decoder block in float64.

Written from arXiv:2306.00978 (with duo scaling and clipping as the published program has them).
numpy 2, safetensors 0.8.

usage: awq.py [OUT]
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

HIDDEN, INTER, HEADS, KV, DIM, GROUP, BITS = 32, 64, 2, 1, 16, 32, 4
SAMPLES, TOKENS, EPS, GRID = 3, 24, 1e-5, 20


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def rope(x):
    """x: [tokens][heads][DIM], pairs (i, i + DIM / 2)."""
    frequency = 10000.0 ** (-np.arange(0, DIM, 2) / DIM)
    angle = np.arange(len(x))[:, None, None] * frequency
    a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def attend(w, h):
    """The attention's output before o, and after; h: normed input of one sample."""
    q = rope((h @ w["q"].T).reshape(-1, HEADS, DIM))
    k = rope((h @ w["k"].T).reshape(-1, KV, DIM)).repeat(HEADS // KV, 1)
    v = (h @ w["v"].T).reshape(-1, KV, DIM).repeat(HEADS // KV, 1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(DIM)
    scores[:, np.triu(np.ones((len(h), len(h)), bool), 1)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), v).reshape(len(h), -1)
    return mixed, mixed @ w["o"].T


def activated(w, h):
    gate = h @ w["gate"].T
    return gate / (1 + np.exp(-gate)) * (h @ w["up"].T)


def rounded(weight):
    """To nearest on an asymmetric grid with fp16 scales, group by group."""
    g = weight.reshape(-1, GROUP)
    low, high = np.minimum(g.min(1), 0), np.maximum(g.max(1), 0)
    scale = ((high - low) / (2**BITS - 1)).astype(np.float16).astype(np.float64)[:, None]
    zero = np.round(-low[:, None] / scale)
    codes = np.clip(np.round(g / scale) + zero, 0, 2**BITS - 1)
    return (scale * (codes - zero)).reshape(weight.shape)


def search(linears, x, loss):
    """The best scales; x: inputs [tokens][columns], loss(rounded linears)."""
    x_mean = np.abs(x).mean(0)
    all_rows = np.concatenate(linears).reshape(-1, x.shape[1] // GROUP, GROUP)
    w_mean = (np.abs(all_rows) / (np.abs(all_rows).max(-1, keepdims=True) + 1e-6)).mean(0).ravel()
    best, least = None, np.inf
    for step in range(GRID):
        r = step / GRID
        s = np.maximum(x_mean**r / (w_mean ** (1 - r) + 1e-4), 1e-4)
        s /= np.sqrt(s.max() * s.min())
        now = loss([rounded(w * s) / s for w in linears])
        if now < least:
            best, least, ratio = s, now, r
    print(f"ratio {ratio}, loss {least:.6e}")
    return best


def clip(weight, x):
    out = weight.copy()
    for n in range(len(weight)):
        for k in range(0, weight.shape[1], GROUP):
            w, part = weight[n, k : k + GROUP], x[:, k : k + GROUP]
            largest, least = np.abs(w).max(), np.inf
            for i in range(10):
                bound = largest * (1 - i / 20)
                clipped = np.clip(w, -bound, bound)
                error = ((part @ (rounded(clipped[None])[0] - w)) ** 2).sum()
                if error < least:
                    least, out[n, k : k + GROUP] = error, clipped
    return out


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else (
        pathlib.Path(__file__).resolve().parents[2] / "tests/golden/quantize/awq.safetensors")
    rng = np.random.default_rng(3)
    half = lambda *shape, scale=0.2: (rng.normal(size=shape) * scale).astype(np.float16)
    stored = {"q": half(HEADS * DIM, HIDDEN), "k": half(KV * DIM, HIDDEN), "v": half(KV * DIM, HIDDEN),
              "o": half(HIDDEN, HEADS * DIM), "gate": half(INTER, HIDDEN), "up": half(INTER, HIDDEN),
              "down": half(HIDDEN, INTER), "input_norm": half(HIDDEN, scale=0.5) + np.float16(1),
              "post_norm": half(HIDDEN, scale=0.5) + np.float16(1)}
    stored["x"] = half(SAMPLES, TOKENS, HIDDEN, scale=1) * np.exp(half(HIDDEN, scale=1.2))
    stored = {key: value.astype(np.float16) for key, value in stored.items()}
    w = {key: value.astype(np.float64) for key, value in stored.items()}

    # Everything in the original block.
    h1 = norm(w["x"], w["input_norm"])
    mixed = np.stack([attend(w, h)[0] for h in h1])
    after = w["x"] + mixed @ w["o"].T
    h2 = norm(after, w["post_norm"])
    act = activated(w, h2)
    flat = lambda x: x.reshape(-1, x.shape[-1])

    attention = np.stack([attend(w, h)[1] for h in h1])
    mlp = act @ w["down"].T
    s1 = search([w[i] for i in "qkv"], flat(h1), lambda new: sum(
        ((attend({**w, **dict(zip("qkv", new))}, h)[1] - y) ** 2).sum() for h, y in zip(h1, attention)))
    s3 = search([w["gate"], w["up"]], flat(h2), lambda new: (
        (activated({**w, "gate": new[0], "up": new[1]}, h2) @ w["down"].T - mlp) ** 2).sum())
    s4 = search([w["down"]], flat(act), lambda new: ((flat(act) @ (new[0] - w["down"]).T) ** 2).sum())

    folded = {"q": w["q"] * s1, "k": w["k"] * s1, "v": w["v"] * s1, "o": w["o"], "gate": w["gate"] * s3,
              "up": w["up"] * s3 / s4[:, None], "down": w["down"] * s4}
    inputs = {"v": flat(h1) / s1, "o": flat(mixed), "gate": flat(h2) / s3, "up": flat(h2) / s3,
              "down": flat(act) / s4}
    result = {f"awq.{i}": rounded(clip(folded[i], inputs[i]) if i in inputs else folded[i])
              for i in folded}
    result["awq.input_norm"] = w["input_norm"] / s1
    result["awq.post_norm"] = w["post_norm"] / s3
    save_file({**stored, **{k: v.astype(np.float32) for k, v in result.items()}}, out)


if __name__ == "__main__":
    main()
