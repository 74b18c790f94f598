"""Golden logits of tiny random models, one for every family and variant.

Weights are not stored: tests/support/tiny_model.h makes the same ones from the same generator.
Made with transformers 5.23.0, torch 2.15, numpy, safetensors:

    python tools/golden/tiny_models.py tests/golden/tiny_models.json
"""

import json
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

PROMPT_TOKENS = 40
ROWS = [0, 1, 7, 20, 39]

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def family(name, architecture, **changes):
    return BASE | {"model_type": name, "architectures": [architecture]} | changes


def llama(**changes):
    return family("llama", "LlamaForCausalLM", **changes)


def without(config, key):
    return {k: v for k, v in config.items() if k != key}


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

MODELS = {
    "llama": llama(),
    "llama_bf16": llama(torch_dtype="bfloat16"),
    "llama_gqa_tied": llama(num_key_value_heads=2, tie_word_embeddings=True, rope_theta=500000.0),
    "llama_linear_rope": llama(rope_scaling={"type": "linear", "factor": 4.0}),
    "llama3_rope_mqa": llama(num_key_value_heads=1, rope_scaling=LLAMA3),
    "llama_biases_head_dim": without(
        llama(
            attention_bias=True,
            mlp_bias=True,
            head_dim=24,
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 20000.0},
        ),
        "rope_theta",
    ),
    "mistral_window": family(
        "mistral", "MistralForCausalLM", num_key_value_heads=2, sliding_window=7
    ),
    "mistral_no_window": family("mistral", "MistralForCausalLM", sliding_window=None, head_dim=32),
    "qwen2": family(
        "qwen2",
        "Qwen2ForCausalLM",
        num_key_value_heads=2,
        tie_word_embeddings=True,
        sliding_window=7,
        use_sliding_window=False,
        rope_theta=1000000.0,
    ),
    "qwen2_window": family(
        "qwen2",
        "Qwen2ForCausalLM",
        num_key_value_heads=2,
        sliding_window=7,
        use_sliding_window=True,
        max_window_layers=1,
    ),
    "qwen3": family("qwen3", "Qwen3ForCausalLM", num_key_value_heads=2, head_dim=32),
    "qwen3_bias": family(
        "qwen3", "Qwen3ForCausalLM", num_key_value_heads=2, head_dim=16, attention_bias=True
    ),
}


def random_words(name, count):
    """splitmix64 seeded with FNV-1a of the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = np.uint64(seed) + steps
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def random_weight(name, shape):
    """Exact in fp32: 16 random bits, scaled by powers of two."""
    unit = (random_words(name, int(np.prod(shape))) >> np.uint64(48)).astype(np.float32) / 65536
    if "norm" in name:
        values = 0.75 + 0.5 * unit
    elif "embed_tokens" in name:
        values = 2.0 * (unit - 0.5)
    else:
        values = 0.5 * (unit - 0.5)
    return torch.tensor(values.reshape(shape))


def logits_of(config):
    torch_dtype = getattr(torch, config.get("torch_dtype", "float32"))
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file)
        shapes = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        weights = {
            name: random_weight(name, tuple(value.shape)).to(torch_dtype)
            for name, value in shapes.state_dict().items()
            if not (name == "lm_head.weight" and config["tie_word_embeddings"])
        }
        save_file(weights, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        # Computed in fp64, so that the golden values have no rounding of their own.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager"
        ).eval()
        prompt = (random_words("prompt", PROMPT_TOKENS) % np.uint64(config["vocab_size"])).tolist()
        with torch.no_grad():
            return model(torch.tensor([prompt])).logits[0, ROWS]


def main():
    models = []
    for name, config in MODELS.items():
        logits = logits_of(config)
        print(name, logits.std().item(), logits[-1, :3].tolist())
        values = [float(f"{value:.8g}") for value in logits.flatten().tolist()]
        models.append({"name": name, "config": config, "logits": values})
    golden = {"prompt_tokens": PROMPT_TOKENS, "rows": ROWS, "models": models}
    with open(sys.argv[1], "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
