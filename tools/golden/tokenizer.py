#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/encodings.json: what Hugging Face `tokenizers` makes of
wikitext2-test and of 10,000 random strings, as hashes (of blocks of strings, so that a failure says
where it is). The vocabularies are built here from GGUF metadata, independently of lowbit.

Made with tokenizers 0.23.3, transformers 5.23.0 (generate_merges) and gguf 0.19.0.
Usage: tokenizer.py [--shared FOLDER] [--smollm2 FILE] [--output FILE]
"""

import argparse
import json
import os
import pathlib

from gguf import GGUFReader
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import generate_merges

MASK = (1 << 64) - 1
STRINGS = 10_000
BLOCK = 100
VARIANT_STRINGS = 1_000


class Random:
    """splitmix64, as tests/support/random.h"""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % bound


SPACES = "\t\n\r \u0085\u00a0\u2003\u2028\u3000"
SNIPPETS = ["'s", "'LL", "'re", "'\u017f", "\r\n", "  ", " \n", "1234", "<0x41>", "\u2581", "e\u0301",
            "<|eot_id|>", "<|im_end|>", "</s>", "<|endoftext|>", "\u1100\u1161", "\ufb01"]


# tests/tokenizer/encodings_test.cpp makes the same strings.
def random_string(seed):
    random = Random(seed)
    out = []
    for _ in range(random.below(48)):
        kind = random.below(12)
        if kind <= 3:
            out.append(chr(0x20 + random.below(95)))
        elif kind == 4:
            out.append(SPACES[random.below(len(SPACES))])
        elif kind == 5:
            out.append(SNIPPETS[random.below(len(SNIPPETS))])
        elif kind <= 10:
            first, count = [(0xA0, 0x500), (0x300, 0x70), (0x900, 0x500), (0x4E00, 0x5000),
                            (0x1F300, 0x700)][kind - 6]
            out.append(chr(first + random.below(count)))
        else:
            code = random.below(0x110000)
            out.append("\ufffd" if 0xD800 <= code < 0xE000 else chr(code))
    return "".join(out)


def mix(value, numbers):
    for number in numbers:
        value = ((value ^ number) * 0x100000001B3 + 1) & MASK
    return value


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def from_gguf(path, pre_tokenizer):
    """tokenizer.json of a GGUF vocabulary, the pre-tokenizer from outside."""
    fields = GGUFReader(path).fields
    read = lambda key: fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else None
    tokens, types = read("tokens"), read("token_type")
    vocab = {token: i for i, token in enumerate(tokens)}
    added = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": t != 4} for i, t in enumerate(types) if t in (2, 3, 4)]
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": None, "pre_tokenizer": pre_tokenizer, "post_processor": None,
                "decoder": DECODER}
    model = {"type": "BPE", "vocab": vocab}
    if read("model") == "llama":
        scores = dict(zip(tokens, read("scores")))
        skip = [token for token, t in zip(tokens, types) if t not in (1, 5)]
        model.update(merges=generate_merges(vocab, scores, skip), unk_token="<unk>", fuse_unk=True,
                     byte_fallback=True)
        space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        document["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"}, space]}
        document["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    else:
        model["merges"] = [tuple(merge.split(" ")) for merge in read("merges")]
    document["model"] = model
    return document


VARIANTS = {  # components put onto GPT-2's vocabulary
    "nfc": {"normalizer": {"type": "NFC"}},
    "nfd": {"normalizer": {"type": "NFD"}},
    "nfkc": {"normalizer": {"type": "NFKC"}},
    "nfkd": {"normalizer": {"type": "NFKD"}},
    "lowercase strip": {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True}]}},
    "replace": {"normalizer": {"type": "Replace", "pattern": {"Regex": "[a-f]+"}, "content": "x y"}},
    "llama-3": {"pre_tokenizer": sequence(split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
        {**BYTE_LEVEL, "use_regex": False})},
    "qwen-2": {"pre_tokenizer": sequence(split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
        {**BYTE_LEVEL, "use_regex": False})},
    "prefix space": {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}},
    "byte level first": {"pre_tokenizer": sequence(
        {"type": "Punctuation", "behavior": "Contiguous"}, BYTE_LEVEL,
        {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]"))},
    "whitespace": {"pre_tokenizer": sequence({"type": "Whitespace"}, {**BYTE_LEVEL, "use_regex": False})},
    "whitespace split": {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, {**BYTE_LEVEL, "use_regex": False})},
    "metaspace first": {"pre_tokenizer": sequence(
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        {**BYTE_LEVEL, "use_regex": False})},
    "metaspace always": {"pre_tokenizer": sequence(
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False},
        {**BYTE_LEVEL, "use_regex": False}),
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False}},
    "merged with previous": {"pre_tokenizer": sequence(
        {"type": "Split", "pattern": {"Regex": r"\s|'"}, "behavior": "MergedWithPrevious", "invert": False},
        {**BYTE_LEVEL, "use_regex": False})},
    "merged with next": {"pre_tokenizer": sequence(
        {"type": "Split", "pattern": {"Regex": r"\s|'"}, "behavior": "MergedWithNext", "invert": False},
        {**BYTE_LEVEL, "use_regex": False})},
    "contiguous inverted": {"pre_tokenizer": sequence(
        {"type": "Split", "pattern": {"Regex": r"[a-zA-Z]"}, "behavior": "Contiguous", "invert": True},
        {**BYTE_LEVEL, "use_regex": False})},
    "removed": {"pre_tokenizer": sequence(
        {"type": "Split", "pattern": {"String": "e"}, "behavior": "Removed", "invert": False},
        {**BYTE_LEVEL, "use_regex": False})},
    "single word": {"added_tokens": [
        {"id": 50256, "content": "<|endoftext|>", "special": True},
        {"id": 64, "content": "a", "single_word": True},
        {"id": 50257, "content": " \n", "rstrip": True},
        {"id": 50258, "content": "<0x41>", "lstrip": True, "rstrip": True},
        {"id": 297, "content": "ll", "normalized": True}],
        "normalizer": {"type": "Lowercase"}},
}


def added_token(entry):
    return {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **entry}


def blocks(tokenizer, strings):
    encoded, decoded = [], []
    for begin in range(0, len(strings), BLOCK):
        ids_hash = text_hash = 0
        for string in strings[begin:begin + BLOCK]:
            ids = tokenizer.encode(string, add_special_tokens=False).ids
            ids_hash = mix(ids_hash, ids + [0xFFFFFFFF])
            text_hash = mix(text_hash, tokenizer.decode(ids, skip_special_tokens=False).encode() + b"\xff")
        encoded.append(f"{ids_hash:016x}")
        decoded.append(f"{text_hash:016x}")
    return {"encoded": encoded, "decoded": decoded}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=pathlib.Path, default="../shared")
    parser.add_argument("--smollm2", default=os.path.expanduser("~/.cache/lowbit/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--output", type=pathlib.Path, default="tests/golden/tokenizer/encodings.json")
    arguments = parser.parse_args()
    vocab = lambda name: str(arguments.shared / f"data/vocab-gguf/ggml-vocab-{name}.gguf")
    digits = sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL)
    documents = {
        "smollm2": from_gguf(arguments.smollm2, BYTE_LEVEL),
        "gpt-2": from_gguf(vocab("gpt-2"), BYTE_LEVEL),
        "starcoder": from_gguf(vocab("starcoder"), digits),
        "llama-spm": from_gguf(vocab("llama-spm"), None),
        "llama-3.1": json.loads((arguments.shared / "models/llama-3.1-tokenizer/tokenizer.json").read_text()),
    }
    text = (arguments.shared / "data/wikitext2-test.txt").read_bytes().decode()
    strings = [random_string(seed) for seed in range(STRINGS)]
    golden = {"tokenizers": {}, "variants": {}}
    for name, document in documents.items():
        print(name, flush=True)
        tokenizer = Tokenizer.from_str(json.dumps(document))
        golden["tokenizers"][name] = blocks(tokenizer, strings)
        if name in ("smollm2", "llama-3.1"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            golden["tokenizers"][name]["wikitext2"] = {"tokens": len(ids), "hash": f"{mix(0, ids):016x}"}
    for name, components in VARIANTS.items():
        print(name, flush=True)
        if "added_tokens" in components:
            components["added_tokens"] = [added_token(entry) for entry in components["added_tokens"]]
        tokenizer = Tokenizer.from_str(json.dumps({**documents["gpt-2"], **components}))
        golden["variants"][name] = {"components": components, **blocks(tokenizer, strings[:VARIANT_STRINGS])}
    arguments.output.write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
