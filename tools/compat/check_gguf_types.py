#!/usr/bin/env python3
"""Compares `lowbit quantize --format gguf:...` with llama-quantize, type by type, on one model: sizes, squared errors of
the matrices as the gguf package reads both files, whether both chose the same types, and whether llama.cpp loads ours.

Versions: gguf 0.19.0, llama.cpp as in the sdist of llama-cpp-python 0.3.36.
Usage: check_gguf_types.py LOWBIT LLAMA_BIN_FOLDER MODEL WORK_FOLDER [TYPE...]; MODEL is whatever lowbit reads.
"""

import pathlib
import subprocess
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# lowbit's name: llama-quantize's arguments. Plain types are compared by --pure files.
TYPES = {
    "q5_0": ["--pure", "Q5_0"], "q5_1": ["--pure", "Q5_1"], "iq4_nl": ["--pure", "IQ4_NL"],
    "q2_k_m": ["Q2_K"], "q3_k_s": ["Q3_K_S"], "q3_k_m": ["Q3_K_M"], "q3_k_l": ["Q3_K_L"],
    "q4_k_s": ["Q4_K_S"], "q4_k_m": ["Q4_K_M"], "q5_k_s": ["Q5_K_S"], "q5_k_m": ["Q5_K_M"], "q6_k": ["--pure", "Q6_K"],
}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")


def matrices(path):
    return {t.name: t for t in GGUFReader(path).tensors if len(t.shape) > 1}


def values(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype("f8")


def main():
    lowbit, llama, model, work = sys.argv[1:5]
    work = pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    whole, ours, theirs = (str(work / name) for name in ("f16.gguf", "ours.gguf", "theirs.gguf"))
    run(lowbit, "quantize", "-m", model, "-o", whole, "--format", "gguf:f16", "--force")
    original = matrices(whole)
    print("| type | MiB here | MiB llama.cpp | same types | squared error / llama.cpp's | of each type | llama.cpp says |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[5:] or TYPES:
        run(lowbit, "quantize", "-m", whole, "-o", ours, "--format", f"gguf:{name}", "--force")
        options = TYPES[name]
        run(f"{llama}/llama-quantize", *options[:-1], whole, theirs, options[-1], "2")
        mine, other = matrices(ours), matrices(theirs)
        same, sums = True, {}
        for tensor in original:
            if mine[tensor].tensor_type != other[tensor].tensor_type:
                same = same and options[0] == "--pure" and tensor in ("token_embd.weight", "output.weight")
                continue
            truth = values(original[tensor])
            errors = [float(np.sum((values(t[tensor]) - truth) ** 2)) for t in (mine, other)]
            of_type = sums.setdefault(mine[tensor].tensor_type.name, [0.0, 0.0])
            for i in range(2):
                of_type[i] += errors[i]
        total = [sum(pair[i] for pair in sums.values()) for i in range(2)]
        each = ", ".join(f"{kind} {pair[0] / pair[1]:.3f}" for kind, pair in sorted(sums.items()) if pair[1] > 0)
        answer = run(f"{llama}/llama-simple", "-m", ours, "-n", "8", "The capital of France is").stdout
        size = [pathlib.Path(p).stat().st_size / 2**20 for p in (ours, theirs)]
        print(f"| {name} | {size[0]:.1f} | {size[1]:.1f} | {'yes' if same else 'NO'} | {total[0] / total[1]:.4f} | {each} | "
              f"{' '.join(answer.split())[:60]} |", flush=True)


if __name__ == "__main__":
    main()
