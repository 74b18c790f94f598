#!/usr/bin/env python3
"""Times PyTorch's scaled_dot_product_attention in the shapes of `lowbit bench attention`.

Heads as in Llama-3.1-8B: 32 query heads over 8 KV heads of 128, fp16, random values. Decoding reads
sets of keys and values in turn, so that none is in a cache; keys lie in one piece for each sequence
(not paged). Prints one JSON line a row.

    python3 bench/peers/torch_attention.py
"""
import json
import statistics

import torch
import torch.nn.functional as F

HEADS, KV_HEADS, DIM = 32, 8, 128


def seconds(calls, repeats=9):
    """Median time of one of `calls`, run one after the other in a CUDA graph."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3 / len(calls))
    return statistics.median(times)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.float16)


def decode(sequences, context):
    size = sequences * context * KV_HEADS * DIM * 2 * 2
    sets = max(2, min(32, (1 << 32) // size))
    q = random(sequences, HEADS, 1, DIM)
    pairs = [[random(sequences, KV_HEADS, context, DIM) for _ in range(2)] for _ in range(sets)]
    calls = [lambda k=k, v=v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
             for k, v in pairs]
    t = seconds(calls)
    return {"sequences": sequences, "context": context, "us": t * 1e6, "gb_s": size / t / 1e9}


def prefill(tokens):
    q = random(1, HEADS, tokens, DIM)
    k, v = (random(1, KV_HEADS, tokens, DIM) for _ in range(2))
    t = seconds([lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)]
                * 4)
    flops = 4 * HEADS * DIM * tokens * (tokens + 1) / 2
    return {"tokens": tokens, "us": t * 1e6, "tflop_s": flops / t / 1e12}


def main():
    torch.manual_seed(1)
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name()}))
    with torch.inference_mode():
        for sequences, context in [(1, 1024), (1, 8192), (8, 1024), (8, 8192), (32, 2048), (32, 8192)]:
            print(json.dumps(decode(sequences, context)))
        for tokens in [1024, 2048, 4096, 8192]:
            print(json.dumps(prefill(tokens)))


if __name__ == "__main__":
    main()
