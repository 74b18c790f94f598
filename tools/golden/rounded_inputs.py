"""Inputs of linears rounded by compressed-tensors itself, in each way that its configs state.

Versions: compressed-tensors 0.20, torch 2.15.0, safetensors 0.8.0.
Usage: rounded_inputs.py [OUT]; OUT defaults to tests/golden/formats/rounded_inputs.safetensors.

  x                       [tokens][256]
  NAME.expected           what x becomes
  NAME.input_scale, NAME.input_zero_point      of static schemes, as checkpoints hold them
  metadata NAME           "input_activations" of the config group
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import (calculate_qparams,
                                                   compute_dynamic_scales_and_zp)
from safetensors.torch import save_file

INT8 = {"num_bits": 8, "type": "int"}
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
SCHEMES = {
    "token_zero": INT8 | {"symmetric": False, "strategy": "token", "dynamic": True},
    "token_zero4": INT8 | {"num_bits": 4, "symmetric": False, "strategy": "token",
                           "dynamic": True},
    "static": INT8 | {"symmetric": True, "strategy": "tensor", "dynamic": False},
    "static_zero": INT8 | {"symmetric": False, "strategy": "tensor", "dynamic": False},
    "float_token": FLOAT8 | {"strategy": "token", "dynamic": True},
    "float_group": FLOAT8 | {"strategy": "group", "group_size": 128, "dynamic": True},
    "float_static": FLOAT8 | {"strategy": "tensor", "dynamic": False},
}


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = (sys.argv[1] if len(sys.argv) > 1
           else root / "tests/golden/formats/rounded_inputs.safetensors")
    torch.manual_seed(3)
    x = torch.randn(1, 6, 256) * torch.tensor([0.01, 1, 30, 1, 1, 1])[:, None]
    x[0, 3] = x[0, 3].abs()  # nothing below 0
    x[0, 4] = 0
    x[0, 5, ::17] *= 40
    tensors, facts = {"x": x[0]}, {}
    for name, arguments in SCHEMES.items():
        args = QuantizationArgs(**arguments)
        if args.dynamic:
            scale, zero = compute_dynamic_scales_and_zp(x, args, torch.nn.Linear(256, 1))
        else:
            low, high = x.amin().reshape(1) / 3, x.amax().reshape(1) / 3  # some are cut off
            scale, zero = calculate_qparams(low, high, args)
            tensors[name + ".input_scale"] = scale
            tensors[name + ".input_zero_point"] = zero.to(torch.int8)
        tensors[name + ".expected"] = fake_quantize(x, scale, zero, args)[0]
        facts[name] = json.dumps(json.loads(args.model_dump_json()))
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(out), facts)


if __name__ == "__main__":
    main()
