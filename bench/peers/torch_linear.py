#!/usr/bin/env python3
"""cuBLAS through torch on the linear layers of Llama-3.1-8B: what `lowbit bench kernels --backend
cuda` is compared with.

y = x W^T in bf16 (and, with --fp8, torch._scaled_mm with a scale for each row), recorded as one CUDA
graph over copies of the weight that together exceed the L2 cache, so that each product reads its
weight from device memory. Prints microseconds (median of the replays), and with --lowbit FILE (the
JSON of `lowbit bench kernels --json`) the ratio of cuBLAS's time to ours for each row of it.

Needs torch with CUDA. Example:
  lowbit bench kernels --backend cuda --only "llama-8b" --tokens 16,32,64,128,256,1024 --json > k.json
  bench/peers/torch_linear.py --lowbit k.json
"""

import argparse
import json
import statistics

import torch

SHAPES = {
    "qkv_proj": (6144, 4096),
    "o_proj": (4096, 4096),
    "gate_up_proj": (28672, 4096),
    "gate_proj": (14336, 4096),
    "down_proj": (4096, 14336),
}
COLD_BYTES = 256 << 20


def graph_seconds(calls, replays):
    """Median seconds of a replay of all calls."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for i in range(replays + 1):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        if i > 0:
            times.append(start.elapsed_time(stop) * 1e-3)
    return statistics.median(times)


def bf16_calls(rows, cols, tokens):
    copies = max(2, COLD_BYTES // (rows * cols * 2))
    weights = [torch.randn(rows, cols, dtype=torch.bfloat16, device="cuda") * 0.02
               for _ in range(copies)]
    x = torch.randn(tokens, cols, dtype=torch.bfloat16, device="cuda")
    out = torch.empty(tokens, rows, dtype=torch.bfloat16, device="cuda")
    return [lambda w=w: torch.mm(x, w.t(), out=out) for w in weights]


def fp8_calls(rows, cols, tokens):
    tokens = max(16, tokens)
    copies = max(2, COLD_BYTES // (rows * cols))
    weights = [(torch.randn(rows, cols, device="cuda") * 0.5).to(torch.float8_e4m3fn)
               for _ in range(copies)]
    x = torch.randn(tokens, cols, device="cuda").to(torch.float8_e4m3fn)
    scale_x = torch.ones(tokens, 1, device="cuda")
    scale_w = torch.ones(1, rows, device="cuda")
    return [lambda w=w: torch._scaled_mm(x, w.t(), scale_a=scale_x, scale_b=scale_w,
                                         out_dtype=torch.bfloat16) for w in weights]


def measure(make_calls, rows, cols, tokens, replays):
    calls = make_calls(rows, cols, tokens)
    return graph_seconds(calls, replays) / len(calls)


def print_table(tokens, replays, fp8):
    kinds = [("bf16", bf16_calls)] + ([("fp8", fp8_calls)] if fp8 else [])
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: microseconds")
    print(f"{'layer':32}" + "".join(f"{'M=' + str(m):>9}" for m in tokens))
    for name, (rows, cols) in SHAPES.items():
        for kind, make_calls in kinds:
            times = [measure(make_calls, rows, cols, m, replays) * 1e6 for m in tokens]
            label = f"{name} {rows} x {cols} {kind}"
            print(f"{label:32}" + "".join(f"{t:9.1f}" for t in times), flush=True)


def print_ratios(path, replays):
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    known = {}
    print(f"{'weight':40}{'tokens':>8}{'lowbit us':>11}{'cuBLAS us':>11}{'ratio':>8}")
    for row in rows:
        key = (row["rows"], row["cols"], row["tokens"])
        if key not in known:
            known[key] = measure(bf16_calls, *key, replays)
        print(f"{row['name']:40}{row['tokens']:8}{row['seconds'] * 1e6:11.1f}"
              f"{known[key] * 1e6:11.1f}{known[key] / row['seconds']:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="1,4,16,32,64,128,256,1024,4096",
                        type=lambda text: [int(m) for m in text.split(",")])
    parser.add_argument("--replays", type=int, default=15)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--lowbit", metavar="FILE", help="rows to compare with")
    options = parser.parse_args()
    with torch.no_grad():
        if options.lowbit:
            print_ratios(options.lowbit, options.replays)
        else:
            print_table(options.tokens, options.replays, options.fp8)


if __name__ == "__main__":
    main()
