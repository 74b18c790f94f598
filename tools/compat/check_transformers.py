#!/usr/bin/env python3
"""Loads folders written by `lowbit quantize` with transformers and compares with lowbit.

Versions it was run with: transformers 5.23.0, torch 2.15.0, compressed-tensors 0.20.0, safetensors.
Usage: check_transformers.py FOLDER [LOWBIT] [-n N]

For compressed-tensors and 16-bit folders transformers loads the model itself. For gptq, whose loader
needs gptqmodel and optimum, the weights are dequantized here by the published rule of version 1
(zero = field + 1, wrapped in its field) and put into a model of the folder's config. Prints the
first logits and the greedy ids; with LOWBIT (the program), fails unless `lowbit run --json` with
the ref backend gives the same ids.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

PROMPT = "The capital of France is"


def fields(words, bits, count):
    """[..., words] int32 to [..., count] fields of a little-endian bit stream."""
    stream = (words.to(torch.int64) & 0xFFFFFFFF).unsqueeze(-1) >> torch.arange(32) & 1
    stream = stream.flatten(-2)[..., : count * bits].unflatten(-1, (count, bits))
    return (stream << torch.arange(bits)).sum(-1)


def gptq_weights(folder, bits):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    state = {}
    for name, value in tensors.items():
        module, leaf = name.rsplit(".", 1)
        if leaf not in ("qweight", "qzeros", "scales", "g_idx"):
            state[name] = value.float()
        if leaf != "qweight":
            continue
        scales, index = tensors[module + ".scales"].float(), tensors[module + ".g_idx"].long()
        rows, cols = value.shape[1], index.numel()
        codes = fields(value.T.contiguous(), bits, cols)
        zeros = (fields(tensors[module + ".qzeros"], bits, rows) + 1) % (1 << bits)
        state[module + ".weight"] = scales.T[:, index] * (codes - zeros.T[:, index]).float()
    return state


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    quantization = config.get("quantization_config", {})
    if quantization.get("quant_method") != "gptq":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = AutoConfig.from_pretrained(folder)
    del plain.quantization_config
    model = AutoModelForCausalLM.from_config(plain, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(gptq_weights(folder, quantization["bits"]), strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("lowbit", nargs="?")
    parser.add_argument("-n", type=int, default=24)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = load(arguments.folder).eval()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
        out = model.generate(ids, max_new_tokens=arguments.n, do_sample=False)
    new = out[0, ids.shape[1]:].tolist()
    print("logits", [round(x, 4) for x in logits[:6].tolist()], "norm", round(logits.norm().item(), 3))
    print("ids   ", new)
    print("text  ", repr(tokenizer.decode(new)))
    if not arguments.lowbit:
        return 0
    command = [arguments.lowbit, "run", "-m", str(arguments.folder), "-p", PROMPT, "-n", str(arguments.n),
               "--temp", "0", "--backend", "ref", "--json"]
    mine = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    same = mine["prompt_ids"] == ids[0].tolist() and mine["ids"][: len(new)] == new[: len(mine["ids"])]
    print("lowbit", mine["ids"], "same" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
