#!/usr/bin/env python3
"""Checks that every #include "lowbit/..." respects the order of the folders (see DESIGN.md)."""

import pathlib
import re
import sys

# Each folder may include itself and those listed, directly or through them.
ALLOWED = {
    "base": [],
    "tensor": ["base"],
    "jinja": ["base"],
    "tokenizer": ["jinja"],
    "checkpoint": ["tensor", "tokenizer"],
    "hub": ["checkpoint"],
    "runtime": ["tensor"],
    "model": ["checkpoint", "runtime"],
    "engine": ["model"],
    "grammar": ["base"],
    "server": ["engine", "grammar"],
    "eval": ["model"],
    "quantize": ["model"],
    "verify": ["model"],
    "report": ["base"],
    "bench": ["engine", "report"],
    "compare": ["bench", "eval", "quantize", "verify"],
}


def reachable(folder):
    found = {folder}
    for below in ALLOWED[folder]:
        found |= reachable(below)
    return found


def violations(root):
    for path in sorted((root / "src" / "lowbit").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        folder = path.relative_to(root / "src" / "lowbit").parts[0]
        if folder not in ALLOWED:
            yield f"{path.relative_to(root)}: folder {folder} is not in tools/check_layers.py"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'#include "lowbit/([a-z0-9_]+)/', line)
            if match and match[1] not in reachable(folder):
                yield f"{path.relative_to(root)}:{number}: {folder} must not include {match[1]}"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    found = list(violations(root))
    print("\n".join(found) if found else "layers are in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
