#!/usr/bin/env python3
"""Which ggml type llama-quantize gives each matrix, for the file types that are mixes.

Versions: llama.cpp as in the sdist of llama-cpp-python 0.3.36, gguf 0.19.0. Usage: gguf_mixes.py
LLAMA_QUANTIZE [OUT]; OUT defaults to tests/golden/quantize/gguf_mixes.json beside this script's
repository.

JSON: for each of two models its sizes, and for each file type by lowbit's name and each matrix the types
from block to block, "Q4_K*2 Q6_K".
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

TYPES = ["Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M"]
MODELS = {
    "wide": {"hidden": 256, "inter": 512, "layers": 18, "heads": 4, "kv_heads": 1, "tied": False},
    "odd": {"hidden": 288, "inter": 256, "layers": 33, "heads": 4, "kv_heads": 2, "tied": True},
}


def write_model(path, model):
    hidden, inter, kv = model["hidden"], model["inter"], model["hidden"] // model["heads"] * model["kv_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(model["layers"])
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inter)
    writer.add_head_count(model["heads"])
    writer.add_head_count_kv(model["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(32)
    shapes = {"token_embd.weight": (32, hidden), "output_norm.weight": (hidden,)}
    if not model["tied"]:
        shapes["output.weight"] = (32, hidden)
    for i in range(model["layers"]):
        shapes.update({f"blk.{i}.{name}.weight": shape for name, shape in {
            "attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden),
            "attn_output": (hidden, hidden), "ffn_norm": (hidden,), "ffn_gate": (inter, hidden),
            "ffn_up": (inter, hidden), "ffn_down": (hidden, inter)}.items()})
    random = np.random.default_rng(3)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0, 0.02, shape).astype("f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types_of(path):
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if "norm" in tensor.name:
            continue
        key, block = (parts[2], int(parts[1])) if parts[0] == "blk" else (parts[0], 0)
        found.setdefault(key, {})[block] = tensor.tensor_type.name
    return {key: " ".join(f"{name}*{len(list(run))}" for name, run in itertools.groupby(
        types[block] for block in sorted(types))) for key, types in sorted(found.items())}


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests/golden/quantize/gguf_mixes.json"
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            whole, small = f"{folder}/whole.gguf", f"{folder}/small.gguf"
            write_model(whole, model)
            golden[name] = {"model": model, "types": {}}
            for kind in TYPES:
                subprocess.run([sys.argv[1], whole, small, kind, "1"], check=True, capture_output=True)
                golden[name]["types"][kind.lower() + "_m" * (kind == "Q2_K")] = types_of(small)
    out.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
