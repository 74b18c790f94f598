"""Makes tests/golden/quantize/decoder_block.json: a small decoder block (Qwen3's, which has every
part: grouped heads, normalized heads, and here a sliding window) and what torch's autograd gives
for it in float64. Made with torch 2.15.

Usage: decoder_block.py [OUT.json]
"""

import json
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
HIDDEN, WIDE, HEADS, KV, DIM, WINDOW, EPS = 16, 20, 4, 2, 4, 5, 1e-6
SEQUENCES, LENGTH = 2, 9


def rounded(*shape, scale, offset=0.0):
    """Values that survive being printed."""
    return (offset + scale * torch.randn(*shape)).float().mul(1024).round().div(1024).double()


shapes = {"q": (HEADS * DIM, HIDDEN), "k": (KV * DIM, HIDDEN), "v": (KV * DIM, HIDDEN),
          "o": (HIDDEN, HEADS * DIM), "gate": (WIDE, HIDDEN), "up": (WIDE, HIDDEN),
          "down": (HIDDEN, WIDE)}
linears = {name: rounded(*shape, scale=0.3).requires_grad_() for name, shape in shapes.items()}
norms = {"input_norm": HIDDEN, "post_attention_norm": HIDDEN, "q_norm": DIM, "k_norm": DIM}
norms = {name: rounded(size, scale=0.2, offset=1.0) for name, size in norms.items()}
x = rounded(SEQUENCES, LENGTH, HIDDEN, scale=1.0).requires_grad_()
dy = rounded(SEQUENCES, LENGTH, HIDDEN, scale=1.0)

frequencies = 1.0 / (10000.0 ** (torch.arange(0, DIM, 2) / DIM))
angles = torch.outer(torch.arange(LENGTH).double(), frequencies)
cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


def heads(values, count, norm):
    values = values.view(SEQUENCES, LENGTH, count, DIM)
    if norm is not None:
        values = F.rms_norm(values, (DIM,), norm, EPS)
    return values.transpose(1, 2)


def rope(values):
    a, b = values.chunk(2, -1)
    return values * cos + torch.cat([-b, a], -1) * sin


n1 = F.rms_norm(x, (HIDDEN,), norms["input_norm"], EPS)
q = rope(heads(n1 @ linears["q"].T, HEADS, norms["q_norm"]))
k = rope(heads(n1 @ linears["k"].T, KV, norms["k_norm"])).repeat_interleave(HEADS // KV, 1)
v = heads(n1 @ linears["v"].T, KV, None).repeat_interleave(HEADS // KV, 1)
position = torch.arange(LENGTH)
seen = (position[:, None] >= position) & (position[:, None] - position < WINDOW)
scores = (q @ k.transpose(-1, -2) / DIM**0.5).masked_fill(~seen, float("-inf"))
attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(SEQUENCES, LENGTH, HEADS * DIM)
h = x + attended @ linears["o"].T
n2 = F.rms_norm(h, (HIDDEN,), norms["post_attention_norm"], EPS)
y = h + (F.silu(n2 @ linears["gate"].T) * (n2 @ linears["up"].T)) @ linears["down"].T
(y * dy).sum().backward()


def flat(tensor):
    return [round(value, 7) for value in tensor.detach().flatten().tolist()]


golden = {"hidden": HIDDEN, "intermediate": WIDE, "heads": HEADS, "kv_heads": KV, "head_dim": DIM,
          "window": WINDOW, "eps": EPS, "sequences": SEQUENCES, "length": LENGTH,
          "shapes": {name: list(shape) for name, shape in shapes.items()}}
golden.update({name: flat(value) for name, value in {**linears, **norms}.items()})
golden.update({"x": flat(x), "dy": flat(dy), "y": flat(y), "dx": flat(x.grad)})
golden.update({"d" + name: flat(value.grad) for name, value in linears.items()})
out = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/quantize/decoder_block.json"
with open(out, "w") as file:
    json.dump(golden, file, separators=(",", ":"))
    file.write("\n")
