"""Linears compressed by compressed-tensors: int8, fp8, mxfp8, mxfp4, nvfp4.

Versions: compressed-tensors 0.20.0, torch 2.15.0, safetensors 0.8.0.
Usage: compressed_linears.py [OUT]; OUT defaults to tests/golden/formats/compressed.safetensors.
For each module M: the stored tensors, M.original (the weight), M.expected (decompressed).
"""

import pathlib
import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.quant_scheme import (FP8_BLOCK, MXFP4A16, MXFP8A16, NVFP4A16)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

F32 = torch.float32
INT8 = dict(num_bits=8, type="int", symmetric=True)
FP8 = dict(num_bits=8, type="float", symmetric=True)
# module, rows, cols, format, arguments
CASES = [
    ("int8_channel", 6, 40, "int-quantized", QuantizationArgs(strategy="channel", **INT8)),
    ("int8_tensor", 6, 40, "int-quantized", QuantizationArgs(strategy="tensor", **INT8)),
    ("int8_zero", 6, 40, "int-quantized",
     QuantizationArgs(strategy="channel", num_bits=8, type="int", symmetric=False)),
    ("fp8_tensor", 6, 40, "float-quantized", QuantizationArgs(strategy="tensor", **FP8)),
    ("fp8_channel", 6, 40, "float-quantized", QuantizationArgs(strategy="channel", **FP8)),
    ("fp8_block", 256, 128, "float-quantized", FP8_BLOCK["weights"]),
    ("mxfp8", 6, 64, "mxfp8-quantized", MXFP8A16["weights"]),
    ("mxfp4", 6, 64, "mxfp4-pack-quantized", MXFP4A16["weights"]),
    ("nvfp4", 6, 64, "nvfp4-pack-quantized", NVFP4A16["weights"]),
]


def groups_of(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """Weights that share a scale, in the last dimension."""
    rows, cols = weight.shape
    strategy = str(getattr(args.strategy, "value", args.strategy))
    if strategy == "tensor":
        return weight.reshape(1, -1)
    if strategy == "channel":
        return weight.reshape(rows, 1, cols)
    if strategy == "block":
        r, c = args.block_structure
        return weight.reshape(rows // r, r, cols // c, c).permute(0, 2, 1, 3).flatten(2)
    return weight.reshape(rows, cols // args.group_size, args.group_size)


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/compressed.safetensors"
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for module, rows, cols, kind, args in CASES:
        weight = torch.randn(rows, cols, generator=generator) * 0.05
        groups = groups_of(weight, args)
        low, high = groups.amin(-1), groups.amax(-1)
        global_scale = generate_gparam(weight.min(), weight.max()) if module == "nvfp4" else None
        scale, zero = calculate_qparams(low, high, args, global_scale=global_scale)
        state = {"weight": weight, "weight_scale": scale}
        if kind == "mxfp8-quantized" or kind == "mxfp4-pack-quantized":
            state["weight_scale"] = scale.float()
        if not args.symmetric:
            state["weight_zero_point"] = zero
        if global_scale is not None:
            state["weight_global_scale"] = global_scale
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        compressor = BaseCompressor.get_value_from_registry(kind)
        stored = compressor.compress(state, scheme)
        expected = compressor.decompress(stored, scheme)["weight"]
        for key, value in stored.items():
            tensors[f"{module}.{key}"] = value
        if module != "fp8_block":  # large, and made of the stored numbers alone
            tensors[f"{module}.original"] = weight
        tensors[f"{module}.expected"] = expected.to(torch.bfloat16 if rows > 100 else F32)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(out))


if __name__ == "__main__":
    main()
