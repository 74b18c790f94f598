"""AQLM linears as the aqlm package reads them, and a tiny Llama of them with its logits.

Versions: aqlm 1.1.7, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
Usage: aqlm_linears.py [OUT]; OUT defaults to tests/golden/formats/aqlm.safetensors.

  M.codes, M.scales, M.codebooks     one linear for each scheme in SCHEMES; those with large
                                     codebooks leave them out: book_value() says what they hold
  metadata M                         {"config": quantization_config, "sha256": of the weight in fp32}
  model.T                            the tensors of a model whose linears are 2x8
  tokens, logits                     one sequence, [tokens][vocabulary]
"""

import hashlib
import json
import pathlib
import sys

import torch
from aqlm.utils import _dequantize_weight, pack_int_data, unpack_int_data
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

# name: codebooks, bits, rows and columns of a vector, rows and columns of the weight
SCHEMES = {
    "1x16": (1, 16, 1, 8, 24, 64),
    "2x8": (2, 8, 1, 8, 24, 64),
    "1x15": (1, 15, 1, 8, 16, 64),
    "4x5": (4, 5, 1, 4, 8, 32),
    "2x10_r2": (2, 10, 2, 4, 12, 32),
}
KEPT = 1024  # vectors of codebooks that are stored

CONFIG = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
          "bos_token_id": 1, "eos_token_id": 2}


def book_value(element):
    """Element number `element` of codebooks in row-major order: exact in fp16."""
    return ((element * 2654435761) % (1 << 32) >> 21) / 1024 - 1


def quantization_config(count, bits, rows, cols):
    return {"quant_method": "aqlm", "num_codebooks": count, "nbits_per_codebook": bits,
            "out_group_size": rows, "in_group_size": cols,
            "linear_weights_not_to_quantize": ["lm_head.weight"]}


def make_linear(count, bits, rows, cols, n, k):
    """codes, codebooks, scales, and the weight."""
    codes = torch.randint(0, 2 ** bits, (n // rows, k // cols, count))
    codes[0, 0] = 2 ** bits - 1  # stored as -1
    shape = (count, 2 ** bits, rows, cols)
    books = book_value(torch.arange(count * 2 ** bits * rows * cols, dtype=torch.int64))
    books = books.reshape(shape).half()
    scales = (0.02 + 0.2 * torch.rand(n // rows, 1, 1, 1)).half()
    stored = pack_int_data(codes.clone(), bits)
    weight = _dequantize_weight(unpack_int_data(stored, bits), books.float(), scales.float())
    return stored, books, scales, weight


def model_tensors():
    torch.manual_seed(8)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    tensors = {}
    for name, value in model.named_parameters():
        value.data = (torch.randn_like(value) * (0.1 if "norm" in name else 1.0)).half().float()
        if "norm" in name:
            value.data += 1
        tensors["model." + name] = value.data.half()
        value.data = value.data.half().float()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        n, k = module.weight.shape
        codes, books, scales, weight = make_linear(2, 5, 1, 8, n, k)
        module.weight.data = weight
        del tensors["model." + name + ".weight"]
        tensors |= {f"model.{name}.codes": codes, f"model.{name}.codebooks": books,
                    f"model.{name}.scales": scales}
    tokens = torch.randint(0, CONFIG["vocab_size"], (1, 16))
    with torch.no_grad():
        tensors["logits"] = model(tokens).logits[0]
    tensors["tokens"] = tokens[0].int()
    return tensors


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/aqlm.safetensors"
    torch.manual_seed(7)
    tensors, facts = model_tensors(), {}
    for name, (count, bits, rows, cols, n, k) in SCHEMES.items():
        codes, books, scales, weight = make_linear(count, bits, rows, cols, n, k)
        tensors |= {f"{name}.codes": codes, f"{name}.scales": scales}
        if count * 2 ** bits <= KEPT:
            tensors[f"{name}.codebooks"] = books
        weight = weight + 0.0  # -0 to 0
        facts[name] = json.dumps({
            "config": quantization_config(count, bits, rows, cols), "rows": n, "cols": k,
            "sha256": hashlib.sha256(weight.contiguous().numpy().tobytes()).hexdigest()})
    facts["model"] = json.dumps({"config": quantization_config(2, 5, 1, 8)})
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(out), facts)


if __name__ == "__main__":
    main()
