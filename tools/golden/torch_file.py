#!/usr/bin/env python3
"""tests/golden/checkpoint/scales.pt: a dictionary of tensors as torch 2.15 saves it.

usage: torch_file.py [OUT]
"""

import pathlib
import sys

import torch


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else (
        pathlib.Path(__file__).resolve().parents[2] / "tests/golden/checkpoint/scales.pt")
    whole = torch.arange(12, dtype=torch.float32) / 4
    torch.save({
        "model.layers.0.self_attn.q_proj": torch.tensor([0.5, 1.25, 3.0]),
        "half": torch.tensor([[1.0, -2.0], [0.25, 65504.0]], dtype=torch.float16),
        "brain": torch.tensor([1.0, 2.0, -0.5], dtype=torch.bfloat16),
        "part": whole[4:8],  # of a storage
        "same": whole[4:8],
        **{f"many.{i}": torch.full((2,), float(i)) for i in range(40)},
    }, out)


if __name__ == "__main__":
    main()
