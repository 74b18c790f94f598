"""Linears quantized by HQQ along axis 1, in every packing, and one along axis 0.

Versions: hqq 0.2.8.post1, torch 2.15.0, safetensors 0.8.0.
Usage: hqq_linears.py [OUT]; OUT defaults to tests/golden/formats/hqq.safetensors.
For each module M: the stored tensors, M.original (the weight), M.expected ((W_q - zero) * scale in
fp32 of the stored numbers).
"""

import pathlib
import sys

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer
from safetensors.torch import save_file

CASES = [("w8", 8, 64, 1), ("w4", 4, 64, 1), ("w3", 3, 32, 1), ("w2", 2, 32, 1), ("w1", 1, 32, 1),
         ("w4_axis0", 4, 64, 0)]
ROWS, COLS = 8, 128


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/hqq.safetensors"
    generator = torch.Generator().manual_seed(6)
    tensors = {}
    for module, bits, group, axis in CASES:
        linear = torch.nn.Linear(COLS, ROWS, bias=False)
        linear.weight.data = (torch.randn(ROWS, COLS, generator=generator) * 0.05).half()
        original = linear.weight.data.clone()
        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        layer = HQQLinear(linear, config, compute_dtype=torch.float16, device="cpu",
                          del_orig=False)
        for key, value in layer.state_dict().items():
            tensors[f"{module}.{key}"] = value
        meta = dict(layer.meta, compute_dtype=torch.float32)
        for key in ("scale", "zero"):
            meta[key] = meta[key].float()
        tensors[f"{module}.original"] = original
        tensors[f"{module}.expected"] = Quantizer.dequantize(layer.W_q.data, meta).float()
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(out))


if __name__ == "__main__":
    main()
