"""A tiny Llama quantized as MixQ does, and its logits by MixQ's formula, both written out plainly.

Versions: transformers 5.23.0, torch 2.15.0, numpy 2.4, safetensors 0.8.0.
Usage: mixq.py [OUT]; OUT defaults to tests/golden/formats/mixq.safetensors.

  original.T      the model's tensors in fp16
  act_scales.M    largest input of each column of linear M over the tokens
  w8.T, w4.T      the tensors of the quantized linears, 8 outlier columns each
  tokens          one sequence
  logits.V        [tokens][vocabulary] of V in original, w8a8, w4a8, w4a4, w4a4_plain (4 bits, no
                  outliers, but w4's other codes)
"""

import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUTLIERS = 8
CONFIG = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
          "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
          "bos_token_id": 1, "eos_token_id": 2}


def quantize(weight, act_scales, bits, outliers):
    """The tensors of one linear, and the integer weight with one number an element."""
    weight = weight.astype(np.float32)
    ind = np.argsort(act_scales, kind="stable")[len(act_scales) - outliers:].astype(np.int32)
    cache = weight[:, ind].astype(np.float16)
    if bits == 4:
        weight = weight.copy()
        weight[:, ind] = 0
    steps = np.float32(127 if bits == 8 else 10)
    scale = (np.abs(weight).max(axis=1) / steps).astype(np.float16)
    low, high = (-128, 127) if bits == 8 else (-8, 7)
    codes = np.clip(np.round(weight / scale.astype(np.float32)[:, None]), low, high).astype(np.int8)
    stored = codes
    if bits == 4:
        nibbles = codes.astype(np.uint8) & 15
        stored = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
    tensors = {"weight": stored, "scale_col": scale[None, :], "ind": ind, "weight_cache": cache}
    return tensors, codes


class MixLinear(torch.nn.Module):
    def __init__(self, tensors, codes, input_bits):
        super().__init__()
        self.codes = torch.from_numpy(codes.astype(np.int64))
        self.scale = torch.from_numpy(tensors["scale_col"].astype(np.float32))
        self.ind = torch.from_numpy(tensors["ind"].astype(np.int64))
        self.cache = torch.from_numpy(tensors["weight_cache"].astype(np.float32))
        self.steps = float(2 ** (input_bits - 1) - 1)

    def forward(self, x):
        x = x.clone()
        outliers = x[..., self.ind]
        x[..., self.ind] = 0
        largest = x.abs().amax(dim=-1, keepdim=True)
        codes = torch.round(x * (self.steps / largest)).to(torch.int64)
        products = codes @ self.codes.T
        return products.float() * (largest / self.steps) * self.scale + outliers @ self.cache.T


def linears(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"}


def make_model():
    torch.manual_seed(20)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    for name, value in model.named_parameters():
        noise = torch.randn_like(value)
        if "norm" in name:  # a few channels are much larger than the others
            value.data = 1 + 0.1 * noise
            value.data[torch.randperm(len(value))[:3]] *= 12
        else:
            value.data = noise * (1.0 if "embed" in name else 0.15)
        value.data = value.data.half().float()
    return model


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/golden/formats/mixq.safetensors"
    model = make_model()
    tokens = torch.randint(0, CONFIG["vocab_size"], (1, 24))
    scales = {}
    hooks = [module.register_forward_pre_hook(
        lambda _, inputs, name=name: scales.__setitem__(name, inputs[0].abs().amax(dim=(0, 1))))
        for name, module in linears(model).items()]
    with torch.no_grad():
        logits = {"original": model(tokens).logits[0]}
    for hook in hooks:
        hook.remove()
    found = {"original." + name: value.detach().numpy().astype(np.float16)
             for name, value in model.named_parameters()}
    for name, value in scales.items():
        found["act_scales." + name] = value.numpy()
    for version, bits, input_bits, outliers in [("w8a8", 8, 8, OUTLIERS), ("w4a8", 4, 8, OUTLIERS),
                                                ("w4a4", 4, 4, OUTLIERS), ("w4a4_plain", 4, 4, 0)]:
        mixed = make_model()
        for name, module in linears(mixed).items():
            eight = bits == 8 or name.endswith("down_proj")
            tensors, codes = quantize(module.weight.detach().numpy(), scales[name].numpy(),
                                      8 if eight else 4, outliers)
            parent, leaf = name.rsplit(".", 1)
            setattr(mixed.get_submodule(parent), leaf,
                    MixLinear(tensors, codes, 8 if eight else input_bits))
            if version in ("w8a8", "w4a8"):
                found |= {f"{version[:2]}.{name}.{key}": value for key, value in tensors.items()}
        with torch.no_grad():
            logits[version] = mixed(tokens).logits[0]
    found |= {"logits." + name: value.numpy() for name, value in logits.items()}
    found["tokens"] = tokens[0].numpy().astype(np.int32)
    save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, str(out))
    exact = logits["original"]
    for name, value in logits.items():
        print(f"{name}: {float((value - exact).norm() / exact.norm()):.4f} from the original")


if __name__ == "__main__":
    main()
