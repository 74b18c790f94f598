"""Linears quantized by bitsandbytes, in 4 bits (NF4, FP4, double quantization) and 8 bits.

Versions: bitsandbytes 0.50.2, torch 2.15.0, safetensors 0.8.0.
Usage: bitsandbytes_linears.py [OUT]; OUT defaults to tests/golden/formats/bitsandbytes.safetensors.
For each module M: the stored tensors, M.original (the weight), M.expected (dequantized).
"""

import pathlib
import sys

import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_quant, quantize_4bit
from safetensors.torch import save_file

# module, rows, cols, type, blocksize, double quantization
CASES = [
    ("nf4", 6, 128, "nf4", 64, False),
    ("nf4_crossing", 5, 96, "nf4", 64, False),
    ("nf4_odd", 3, 33, "nf4", 64, False),
    ("nf4_nested", 131, 128, "nf4", 64, True),
    ("fp4", 6, 128, "fp4", 128, False),
]


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/bitsandbytes.safetensors"
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for module, rows, cols, kind, blocksize, nested in CASES:
        weight = torch.randn(rows, cols, generator=generator) * 0.05
        weight = weight.to(torch.bfloat16).float()
        codes, state = quantize_4bit(weight, blocksize=blocksize, quant_type=kind,
                                     compress_statistics=nested)
        tensors[f"{module}.weight"] = codes
        for key, value in state.as_dict(packed=True).items():
            tensors[f"{module}.weight.{key}"] = value
        tensors[f"{module}.original"] = weight.to(torch.bfloat16)
        tensors[f"{module}.expected"] = dequantize_4bit(codes, state)
    weight = (torch.randn(6, 40, generator=generator) * 0.05).to(torch.float16)
    codes, absmax, _ = int8_vectorwise_quant(weight)
    tensors["int8.weight"] = codes
    tensors["int8.SCB"] = absmax
    tensors["int8.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    tensors["int8.original"] = weight
    tensors["int8.expected"] = codes.float() * (absmax / 127).unsqueeze(1)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(out))


if __name__ == "__main__":
    main()
