#!/usr/bin/env python3
"""Decoding speed of a Llama in PyTorch, one sequence: what `lowbit bench latency --compare-peers`
prints beside its own.

Random weights, keys and values in one piece (SDPA), every block compiled by torch.compile, and the
whole step, with the choice of the next token, recorded as one CUDA graph. Formats: bf16; int4, which
is PyTorch's tinygemm with groups of 128 and bf16 elsewhere; fp8, which is torch._scaled_mm with one
scale for each row of weights and of inputs. Prints one JSON object.

Needs torch with CUDA. Example:
  bench/peers/torch_decode.py --shape llama-3.1-8b --format int4 --context 1024 --tokens 64
"""

import argparse
import json
import statistics
import sys

import torch
import torch.nn.functional as F

# hidden, intermediate, layers, heads, KV heads, head size, vocabulary
SHAPES = {
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128, 128256),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 64, 128256),
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152),
}
GROUP = 128


def random_weight(rows, cols):
    return torch.randn(rows, cols, dtype=torch.bfloat16, device="cuda") * cols ** -0.5


class Bf16Linear(torch.nn.Module):
    def __init__(self, rows, cols):
        super().__init__()
        self.register_buffer("weight", random_weight(rows, cols))

    def forward(self, x):
        return F.linear(x, self.weight)


class Int4Linear(torch.nn.Module):
    def __init__(self, rows, cols):
        super().__init__()
        codes = torch.randint(0, 256, (rows, cols // 2), dtype=torch.uint8, device="cuda")
        self.register_buffer("weight", torch.ops.aten._convert_weight_to_int4pack(codes, 8))
        scales = torch.full((cols // GROUP, rows, 2), 0.02, dtype=torch.bfloat16, device="cuda")
        scales[:, :, 1] = 0
        self.register_buffer("scales", scales)

    def forward(self, x):
        return torch.ops.aten._weight_int4pack_mm(x, self.weight, GROUP, self.scales)


class Fp8Linear(torch.nn.Module):
    def __init__(self, rows, cols):
        super().__init__()
        weight = random_weight(rows, cols).float()
        scale = weight.abs().amax(1, keepdim=True) / 448
        self.register_buffer("weight", (weight / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale.t().contiguous())

    def forward(self, x):
        scale = x.float().abs().amax(1, keepdim=True).clamp(min=1e-6) / 448
        rounded = (x.float() / scale).to(torch.float8_e4m3fn)
        return torch._scaled_mm(rounded, self.weight.t(), scale, self.scale,
                                out_dtype=torch.bfloat16)


LINEARS = {"bf16": Bf16Linear, "int4": Int4Linear, "fp8": Fp8Linear}


def norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-5)


class Block(torch.nn.Module):
    def __init__(self, shape, linear, context):
        super().__init__()
        hidden, wide, _, self.heads, self.kv_heads, self.size, _ = shape
        self.qkv = linear((self.heads + 2 * self.kv_heads) * self.size, hidden)
        self.o = linear(hidden, self.heads * self.size)
        self.gate_up, self.down = linear(2 * wide, hidden), linear(hidden, wide)
        self.register_buffer("norms", torch.ones(2, hidden, dtype=torch.bfloat16, device="cuda"))
        cache = (1, self.kv_heads, context, self.size)
        self.register_buffer("keys", torch.randn(cache, dtype=torch.bfloat16, device="cuda"))
        self.register_buffer("values", torch.randn(cache, dtype=torch.bfloat16, device="cuda"))

    def forward(self, x, position, cos, sin):
        qkv = self.qkv(norm(x, self.norms[0])).view(1, -1, self.size)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], 1)
        first, second = torch.cat((q, k), 1).chunk(2, -1)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        self.keys.index_copy_(2, position, turned[:, self.heads:].unsqueeze(2))
        self.values.index_copy_(2, position, v.unsqueeze(2))
        y = F.scaled_dot_product_attention(turned[:, :self.heads].unsqueeze(2), self.keys,
                                           self.values, enable_gqa=True)
        x = x + self.o(y.view(1, -1))
        gate, up = self.gate_up(norm(x, self.norms[1])).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder:
    def __init__(self, shape, linear, context):
        hidden, _, layers, _, _, size, vocabulary = shape
        self.embedding = random_weight(vocabulary, hidden)
        self.head = Bf16Linear(vocabulary, hidden)
        self.blocks = [Block(shape, linear, context) for _ in range(layers)]
        self.norm = torch.ones(hidden, dtype=torch.bfloat16, device="cuda")
        self.block = torch.compile(Block.forward, fullgraph=True, dynamic=False)
        self.finish = torch.compile(lambda x: self.head(norm(x, self.norm)).argmax(-1))
        self.token = torch.zeros(1, dtype=torch.int64, device="cuda")
        self.position = torch.full((1,), context - 1, dtype=torch.int64, device="cuda")
        angles = torch.randn(2, size // 2, dtype=torch.bfloat16, device="cuda")
        self.cos, self.sin = angles[0], angles[1]

    def step(self):
        x = self.embedding[self.token]
        for block in self.blocks:
            x = self.block(block, x, self.position, self.cos, self.sin)
        self.token.copy_(self.finish(x))


def measure(decoder, tokens, repetitions):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            decoder.step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decoder.step()
    rates = []
    for _ in range(repetitions + 1):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(tokens):
            graph.replay()
        stop.record()
        stop.synchronize()
        rates.append(tokens / (start.elapsed_time(stop) * 1e-3))
    return statistics.median(rates[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--format", choices=LINEARS, default="bf16")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device")
    torch.manual_seed(0)
    # Blocks differ in their buffers alone, which torch.compile must not take for constants.
    torch._dynamo.config.inline_inbuilt_nn_modules = True
    torch._dynamo.config.cache_size_limit = 64
    with torch.no_grad():
        decoder = Decoder(SHAPES[options.shape], LINEARS[options.format], options.context)
        rate = measure(decoder, options.tokens, options.repetitions)
    print(json.dumps({"name": f"torch.compile {options.format}", "version": torch.__version__,
                      "tok_s": rate}))


if __name__ == "__main__":
    main()
