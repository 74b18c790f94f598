"""Seeds for linears_fuzz: one small quantized linear of each format, from the golden files.

Versions: numpy 2.4, safetensors 0.8.0.
Usage: fuzz_linears.py [OUT]; OUT defaults to tests/fuzz/corpus/linears.
"""

import json
import pathlib
import sys

from safetensors import safe_open
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tensors_of(file, prefix):
    with safe_open(ROOT / "tests/golden" / file, "pt") as source:
        found = {"m." + name[len(prefix) + 1:]: source.get_tensor(name).contiguous()
                 for name in source.keys() if name.startswith(prefix + ".")
                 and not name.endswith((".expected", ".original"))}
        return found, source.metadata() or {}


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/fuzz/corpus/linears"
    out.mkdir(parents=True, exist_ok=True)
    described = [("aqlm", "formats/aqlm.safetensors", "4x5"),
                 ("gptq", "checkpoint/gptq.safetensors", None),
                 ("packed", "checkpoint/compressed_tensors.safetensors", None)]
    stated = [("hqq", "formats/hqq.safetensors", "w4", {"quant_method": "hqq"}),
              ("mixq", "formats/mixq.safetensors", "w4.model.layers.0.self_attn.q_proj",
               {"version": "MIX", "w_bit": 4}),
              ("mixq_copy", "formats/mixq_copies.safetensors", "nibbles",
               {"version": "MIX", "w_bit": 4})]
    for name, file, prefix in described:
        if prefix is None:
            with safe_open(ROOT / "tests/golden" / file, "pt") as source:
                prefix = sorted(source.metadata())[0]
        tensors, metadata = tensors_of(file, prefix)
        config = json.loads(metadata[prefix])["config"]
        save_file(tensors, str(out / name), {"quantization_config": json.dumps(config)})
    for name, file, prefix, config in stated:
        save_file(tensors_of(file, prefix)[0], str(out / name),
                  {"quantization_config": json.dumps(config)})


if __name__ == "__main__":
    main()
