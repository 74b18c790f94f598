#!/usr/bin/env python3
"""Measures Hugging Face `tokenizers` on one thread: the peer of `lowbit bench tokenizer`.

Usage: hf_tokenizers.py FOLDER_WITH_TOKENIZER_JSON TEXT_FILE [REPETITIONS]
The text is encoded in one call and, as is usual in practice, line by line (where its word cache
helps more); the faster of the two is the figure to compare with.
"""

import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers  # noqa: E402  (after the environment is set)


def fastest(repetitions, body):
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        body()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    folder, path = sys.argv[1:3]
    repetitions = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    text = pathlib.Path(path).read_bytes().decode()
    start = time.perf_counter()
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    load = time.perf_counter() - start
    encode = lambda part: tokenizer.encode(part, add_special_tokens=False).ids
    ids = encode(text)
    lines = text.splitlines(keepends=True)
    whole = fastest(repetitions, lambda: encode(text))
    by_line = fastest(repetitions, lambda: [encode(line) for line in lines])
    megabytes = len(text.encode()) / 1e6
    print(json.dumps({
        "tokenizers": tokenizers.__version__, "load_seconds": load, "tokens": len(ids),
        "seconds": whole, "mb_s": megabytes / whole,
        "by_line_seconds": by_line, "by_line_mb_s": megabytes / by_line}))


if __name__ == "__main__":
    main()
