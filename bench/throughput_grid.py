#!/usr/bin/env python3
"""`lowbit bench throughput` over models (formats) and numbers of sequences at once: a table, and a
chart as SVG. The cells are measured in turns, so that all see the same neighbours; medians.

  bench/throughput_grid.py Q4_0.gguf Q8_0.gguf --seqs 1,4,16,64 --rounds 3 --svg grid.svg
  bench/throughput_grid.py MODEL -- --backend cuda --input-len 100 --output-len 250

What follows "--" goes to `lowbit bench throughput`. Needs nothing but Python 3.9.
"""

import argparse
import html
import json
import math
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLORS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b"]


def measure(options, model, seqs):
    command = [options.lowbit, "bench", "throughput", "-m", model, "--max-num-seqs", str(seqs),
               "--num-prompts", str(seqs * options.waves), "--json", "--no-progress", *options.bench]
    return json.loads(subprocess.run(command, check=True, text=True, capture_output=True).stdout)


def svg(title, table, seqs):
    """Tokens per second over sequences, both axes logarithmic."""
    width, height, left, top, bottom = 720, 440, 70, 40, 50
    values = [row["output_tok_s"] for cells in table.values() for row in cells.values()]
    low, high = 2 ** math.floor(math.log2(min(values))), 2 ** math.ceil(math.log2(max(values)))
    span = max(math.log2(seqs[-1] / seqs[0]), 1)
    x = lambda n: left + math.log2(n / seqs[0]) / span * (width - left - 30)
    y = lambda v: height - bottom - math.log2(v / low) / math.log2(high / low) * (height - top - bottom)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="20" font-size="14">{title}</text>',
           f'<text x="{width / 2}" y="{height - 10}">sequences at once</text>',
           f'<text transform="translate(16 {height / 2 + 50}) rotate(-90)">output tokens/s</text>']
    for n in seqs:
        out.append(f'<line x1="{x(n)}" x2="{x(n)}" y1="{top}" y2="{height - bottom}" stroke="#ddd"/>'
                   f'<text x="{x(n) - 6}" y="{height - bottom + 18}">{n}</text>')
    tick = low
    while tick <= high:
        out.append(f'<line x1="{left}" x2="{width - 30}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
                   f'<text x="{left - 45}" y="{y(tick) + 4}">{tick:g}</text>')
        tick *= 2
    for i, (model, cells) in enumerate(table.items()):
        color = COLORS[i % len(COLORS)]
        points = " ".join(f'{x(n):.1f},{y(cells[n]["output_tok_s"]):.1f}' for n in seqs)
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
                   f'<text x="{left + 12}" y="{top + 18 + 16 * i}" fill="{color}">{html.escape(model)}</text>')
    return "\n".join(out + ["</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--lowbit", default=str(ROOT / "build/cpu/lowbit"))
    parser.add_argument("--seqs", default="1,2,4,8,16,32,64", help="numbers of sequences at once")
    parser.add_argument("--waves", type=int, default=2, help="requests for each of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--svg", help="draw to this file")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:cut])
    options.bench = sys.argv[cut + 1:]
    seqs = sorted(int(n) for n in options.seqs.split(","))
    readings = {}
    for _ in range(options.rounds):
        for model in options.models:
            for n in seqs:
                readings.setdefault((model, n), []).append(measure(options, model, n))
    median = lambda rows, *keys: statistics.median(
        [row[keys[0]] if len(keys) == 1 else row[keys[0]][keys[1]] for row in rows])
    table = {}
    print(f"{'model':40} {'seqs':>5} {'out tok/s':>10} {'total':>9} {'TTFT p99':>9} {'TPOT p50':>9} {'ITL p99':>8}")
    for (model, n), rows in readings.items():
        name = pathlib.Path(model).name
        cell = {"output_tok_s": median(rows, "output_tok_s")}
        table.setdefault(name, {})[n] = cell
        print(f"{name[:40]:40} {n:5} {cell['output_tok_s']:10.1f} {median(rows, 'total_tok_s'):9.1f} "
              f"{median(rows, 'ttft_ms', 'p99'):9.1f} {median(rows, 'tpot_ms', 'p50'):9.1f} "
              f"{median(rows, 'itl_ms', 'p99'):8.1f}")
    if options.svg:
        pathlib.Path(options.svg).write_text(svg("lowbit bench throughput", table, seqs))


if __name__ == "__main__":
    main()
