"""A small GGUF file written by the gguf package: one tensor of every type that lowbit reads.

Versions: gguf 0.19.0, numpy 2.4.6. Usage: gguf_file.py [OUT]; OUT defaults to
tests/fuzz/corpus/gguf/llama.gguf, which the fuzz target starts from and a test reads.
"""

import pathlib
import sys

import numpy as np
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

QUANTIZED = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.IQ4_NL, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/fuzz/corpus/gguf/llama.gguf"
    writer = GGUFWriter(str(out), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_types([1, 1, 3])
    writer.add_token_scores([0.0, -1.0, -2.0])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_array("factors", [1.0] * 8 + [8.0] * 8)
    random = np.random.default_rng(1)
    for i, kind in enumerate(QUANTIZED):
        block = random.integers(0, 60, (1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        writer.add_tensor(f"blk.0.t{i}.weight", block, raw_dtype=kind)
    writer.add_tensor("token_embd.weight", np.zeros((2, 8), np.float16))
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
