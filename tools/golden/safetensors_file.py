"""A small file written by the reference safetensors writer.

Versions: safetensors 0.8.0. Usage: safetensors_file.py [OUT]; OUT defaults to
tests/golden/checkpoint/reference.safetensors. Byte i of a tensor is i + first byte of its name.
"""

import ctypes
import pathlib
import sys

from safetensors import TensorSpec, serialize_file

TENSORS = [
    ("b.f16", "float16", [2, 3], 12), ("a.bf16", "bfloat16", [4], 8), ("c.f32", "float32", [1, 2], 8),
    ("d.i32", "int32", [2, 1], 8), ("e.i64", "int64", [2], 16), ("f.u8", "uint8", [3], 3),
    ("g.i8", "int8", [], 1), ("h.f32", "float32", [0, 5], 0), ("\u00e9\"\\.u8", "uint8", [2], 2),
]


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    default = root / "tests/golden/checkpoint/reference.safetensors"
    out = sys.argv[1] if len(sys.argv) > 1 else default
    buffers = {
        name: (ctypes.c_uint8 * size)(*((i + name.encode()[0]) & 255 for i in range(size)))
        for name, _, _, size in TENSORS
    }
    tensors = {
        name: TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(buffers[name]),
                         data_len=size)
        for name, dtype, shape, size in TENSORS
    }
    serialize_file(tensors, str(out), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
