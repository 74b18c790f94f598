#!/usr/bin/env python3
"""Dequantizes the linears of a folder written by `lowbit quantize` with the formats' own programs.

Versions: bitsandbytes 0.50.2, compressed-tensors 0.20.0, hqq 0.2.8.post1, torch 2.15.0.
Usage: check_linears.py FOLDER DENSE

DENSE is what lowbit itself reads from FOLDER: `lowbit quantize FOLDER DENSE --format safetensors:f16
--bits 16`. bitsandbytes, hqq and compressed-tensors dequantize by their own code; awq, auto-round
and fp8 by the published rule, below. Prints for each format the number of linears and the largest
difference relative to the largest weight; fails over 1e-3 (fp16 rounds DENSE by up to 5e-4).
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file


def load(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def part(tensors, module):
    """The tensors of one module, by their names inside it."""
    return {k[len(module) + 1:]: v for k, v in tensors.items() if k.startswith(module + ".")}


def nibbles(words):
    return (words.to(torch.int64) & 0xFFFFFFFF).unsqueeze(-1) >> torch.arange(0, 32, 4) & 15


def awq(stored, config):
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    codes = nibbles(stored["qweight"])[..., order].flatten(-2)
    zeros = nibbles(stored["qzeros"])[..., order].flatten(-2)
    scales = stored["scales"].float()
    group = torch.arange(codes.shape[0]) // (codes.shape[0] // scales.shape[0])
    return ((codes - zeros[group]) * scales[group]).T


def gptq_packed(stored, config):
    bits = config["bits"]

    def fields(words, count):
        stream = (words.to(torch.int64) & 0xFFFFFFFF).unsqueeze(-1) >> torch.arange(32) & 1
        stream = stream.flatten(-2)[..., : count * bits].unflatten(-1, (count, bits))
        return (stream << torch.arange(bits)).sum(-1)

    scales = stored["scales"].float()
    cols = stored["qweight"].shape[0] * 32 // bits
    zeros = fields(stored["qzeros"], scales.shape[1])
    if "gptq" in config.get("packing_format", ""):
        zeros = (zeros + 1) % (1 << bits)
    codes = fields(stored["qweight"].T.contiguous(), cols)
    group = torch.arange(cols) // (cols // scales.shape[0])
    return scales.T[:, group] * (codes - zeros.T[:, group])


def fp8(stored, config):
    weight = stored["weight"].float()
    if "weight_scale" in stored:
        return weight * stored["weight_scale"]
    rows, cols = config["weight_block_size"]
    scale = stored["weight_scale_inv"].repeat_interleave(rows, 0).repeat_interleave(cols, 1)
    return weight * scale[: weight.shape[0], : weight.shape[1]]


def bitsandbytes(stored, config):
    from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant

    if "SCB" in stored:
        return int8_vectorwise_dequant(stored["weight"], stored["SCB"])
    state = QuantState.from_dict(
        {k: v for k, v in part({f"x.{k}": v for k, v in stored.items()}, "x.weight").items()}, "cpu")
    state.dtype = torch.float32
    return dequantize_4bit(stored["weight"], state)


def hqq(stored, config):
    from hqq.core.quantize import Quantizer

    text = lambda t: "".join(chr(c) for c in t)
    meta = {"nbits": stored["nbits"].item(), "group_size": stored["group_size"].item(),
            "axis": stored["axis"].item(), "shape": torch.Size(stored["shape"]),
            "packing": text(stored["packing"]), "view_as_float": False,
            "scale": stored["scale"].float(), "zero": stored["zero"].float(),
            "compute_dtype": torch.float32}
    return Quantizer.dequantize(stored["W_q"], meta)


def compressed(stored, config):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    group = config["config_groups"]["group_0"]
    scheme = QuantizationScheme(targets=["Linear"], weights=group["weights"])
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    return compressor.decompress(stored, scheme)["weight"]


READERS = {  # quant_method: (reader, tensor that marks a quantized module)
    "awq": (awq, ("qweight",)),
    "auto-round": (lambda s, c: (awq if "awq" in c["packing_format"] else gptq_packed)(s, c),
                   ("qweight",)),
    "fp8": (fp8, ("weight_scale", "weight_scale_inv")),
    "bitsandbytes": (bitsandbytes, ("SCB", "weight.absmax")),
    "hqq": (hqq, ("W_q",)),
    "compressed-tensors": (compressed, ("weight_scale",)),
}


def main():
    folder, dense = pathlib.Path(sys.argv[1]), load(pathlib.Path(sys.argv[2]))
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    reader, marks = READERS[config["quant_method"]]
    tensors = load(folder)
    worst, count = 0.0, 0
    for name in tensors:
        mark = next((m for m in marks if name.endswith("." + m)), None)
        if mark is None:
            continue
        module = name[: -len(mark) - 1]
        weight = reader(part(tensors, module), config).float()
        mine = dense[module + ".weight"].float()
        assert weight.shape == mine.shape, (module, weight.shape, mine.shape)
        worst = max(worst, ((weight - mine).abs().max() / mine.abs().max()).item())
        count += 1
    print(f"{config['quant_method']:20} {config.get('format', '')} {count} linears, "
          f"largest difference {worst:.2e}")
    return 0 if count and worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
