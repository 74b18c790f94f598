#!/usr/bin/env python3
"""Golden tensors of the packed formats, with digests of the weights that they stand for.

Versions: compressed-tensors 0.20.0, torch 2.15.0, safetensors 0.8. Usage: gptq_ct.py [FOLDER];
FOLDER defaults to tests/golden/checkpoint beside this script's repository.

compressed_tensors.safetensors: packed by compressed-tensors itself, every width, symmetric and
asymmetric, strategies group, channel and tensor, and activation ordering. gptq.safetensors: packed
here word by word as the GPTQ rule says, versions 1 and 2. Metadata: for each module its config
and the SHA-256 of its float32 weights (scale * (code - zero), row-major).
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

ROWS, COLS = 12, 64  # 12: zeros of odd widths cross words


def digest(weights):
    return hashlib.sha256(np.ascontiguousarray(weights, dtype="<f4").tobytes()).hexdigest()


def scales_and_codes(random, bits, groups, symmetric, rows, cols):
    half = 1 << (bits - 1)
    scales = random.uniform(0.001, 0.1, (rows, groups)).astype(np.float16)
    codes = random.integers(0, 2 * half, (rows, cols))
    zeros = np.full((rows, groups), half) if symmetric else random.integers(0, 2 * half, (rows, groups))
    return scales, codes, zeros


def compressed_module(random, bits, symmetric, strategy, index=None):
    groups = {"group": 2, "channel": 1, "tensor": 1}[strategy]
    rows = 1 if strategy == "tensor" else ROWS
    scales, codes, zeros = scales_and_codes(random, bits, groups, symmetric, rows, COLS)
    codes = random.integers(0, 1 << bits, (ROWS, COLS))
    half = 1 << (bits - 1)
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy,
                            group_size=COLS // 2 if strategy == "group" else None)
    of = np.arange(COLS) // (COLS // groups) if index is None else index
    weights = scales.astype(np.float32)[:, of] * (codes - zeros[:, of]).astype(np.float32)
    # The packer quantizes; on its own grid that gives the codes back.
    state = {"weight": torch.tensor(weights),
             "weight_scale": torch.tensor(scales.astype(np.float32)),
             "weight_zero_point": torch.tensor(zeros - half, dtype=torch.int8)}
    if strategy == "tensor":
        state["weight_scale"] = state["weight_scale"].reshape(1)
        state["weight_zero_point"] = state["weight_zero_point"].reshape(1)
    if index is not None:
        state["weight_g_idx"] = torch.tensor(index, dtype=torch.int32)
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
        state = {"weight_packed": pack_to_int32(torch.tensor(codes - half, dtype=torch.int8), bits),
                 "weight_scale": state["weight_scale"], "weight_g_idx": state["weight_g_idx"],
                 "weight_shape": torch.tensor([ROWS, COLS])}
    else:
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        state = PackedQuantizationCompressor.compress(state, scheme)
        back = PackedQuantizationCompressor.decompress(state, scheme)["weight"].numpy()
        assert np.array_equal(back, weights), (bits, symmetric, strategy)
    state["weight_scale"] = state["weight_scale"].to(torch.float16)
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized",
              "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                  "num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy,
                  "group_size": args.group_size}}}}
    return state, config, weights


def old_packed(codes, bits):
    """Before May 2026: 32 // bits values to a word, the top bits unused."""
    per_word = 32 // bits
    words = -(-codes.shape[1] // per_word)
    packed = np.zeros((codes.shape[0], words), dtype=np.uint32)
    for k in range(codes.shape[1]):
        packed[:, k // per_word] |= codes[:, k].astype(np.uint32) << (k % per_word * bits)
    return torch.tensor(packed.view(np.int32))


def dense_words(fields, bits):
    """[n][count] fields to [n][count * bits / 32] words: one little-endian bit stream."""
    stream = [0] * fields.shape[0]
    for row in range(fields.shape[0]):
        for i, field in enumerate(fields[row]):
            stream[row] |= int(field) << (i * bits)
    count = fields.shape[1] * bits // 32
    words = [[(value >> (32 * w)) & 0xFFFFFFFF for w in range(count)] for value in stream]
    return np.array(words, dtype=np.uint32).view(np.int32)


def gptq_module(random, bits, symmetric, version, ordered):
    rows, cols, size = 32, 64, 32
    scales, codes, zeros = scales_and_codes(random, bits, cols // size, symmetric, rows, cols)
    index = np.arange(cols) // size
    if ordered:
        index = random.permutation(index)
    weights = scales.astype(np.float32)[:, index] * (codes - zeros[:, index]).astype(np.float32)
    stored = (zeros - 1) & ((1 << bits) - 1) if version == 1 else zeros
    state = {"qweight": torch.tensor(np.ascontiguousarray(dense_words(codes, bits).T)),
             "qzeros": torch.tensor(dense_words(stored.T, bits)),
             "scales": torch.tensor(np.ascontiguousarray(scales.T)),
             "g_idx": torch.tensor(index, dtype=torch.int32)}
    config = {"quant_method": "gptq", "bits": bits, "group_size": size, "sym": symmetric,
              "desc_act": ordered, "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}
    return state, config, weights


def save(path, modules):
    tensors, metadata = {}, {}
    for name, (state, config, weights) in modules.items():
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in state.items()})
        metadata[name] = json.dumps({"config": config, "sha256": digest(weights)})
    save_file(tensors, path, metadata=metadata)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)

    modules = {}
    for bits in range(2, 9):
        for symmetric in (True, False):
            for strategy in ("group", "channel") + (("tensor",) if bits == 4 else ()):
                name = f"w{bits}_{'sym' if symmetric else 'asym'}_{strategy}"
                modules[name] = compressed_module(random, bits, symmetric, strategy)
    index = random.permutation(np.arange(COLS) // (COLS // 2))
    modules["w4_ordered"] = compressed_module(random, 4, True, "group", index)
    for bits in (3, 7):
        scales, codes, zeros = scales_and_codes(random, bits, 2, True, ROWS, COLS)
        of = np.arange(COLS) // (COLS // 2)
        weights = scales.astype(np.float32)[:, of] * (codes - zeros[:, of]).astype(np.float32)
        state = {"weight_packed": old_packed(codes, bits), "weight_scale": torch.tensor(scales),
                 "weight_shape": torch.tensor([ROWS, COLS])}
        config = modules[f"w{bits}_sym_group"][1]
        modules[f"w{bits}_old"] = (state, config, weights)
    save(folder / "compressed_tensors.safetensors", modules)

    modules = {}
    for bits in (2, 3, 4, 8):
        for symmetric in (True, False):
            for version in (1, 2):
                name = f"w{bits}_{'sym' if symmetric else 'asym'}_v{version}"
                modules[name] = gptq_module(random, bits, symmetric, version, False)
    modules["w4_ordered"] = gptq_module(random, 4, True, 1, True)
    modules["w3_ordered"] = gptq_module(random, 3, False, 2, True)
    save(folder / "gptq.safetensors", modules)


if __name__ == "__main__":
    main()
