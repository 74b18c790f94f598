"""Golden continuations and perplexities of SmolLM2-135M-Instruct (Q4_1 GGUF, dequantized to fp32).

Made with transformers 5.23.0, torch 2.15, gguf 0.17:

    python tools/golden/smollm2.py MODEL.gguf WIKITEXT2_TEST tests/golden/smollm2.json
"""

import json
import math
import sys

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

NEW_TOKENS = 48

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are a pirate.<|im_end|>\n<|im_start|>user\nSay hello.<|im_end|>\n"
    "<|im_start|>assistant\n",
    "1, 1, 2, 3, 5, 8, 13,",
    "Die Hauptstadt von Deutschland ist",
    "SELECT name, age FROM users WHERE",
    "The mitochondria is the powerhouse of the cell. In more detail, it",
    "Q: If a train travels 60 miles in 1.5 hours, what is its speed?\nA:",
    "日本の首都は",
    "\U0001f600 emoji are fun because",
    "A",
    "import numpy as np\n\ndef softmax(x):\n",
    "It was the best of times, it was the worst of times, " * 12,
]


def tensors(reader):
    """fp32 weights by Hugging Face's names, q and k back from interleaved to split halves."""
    heads = {
        "attn_q": int(reader.get_field("llama.attention.head_count").contents()),
        "attn_k": int(reader.get_field("llama.attention.head_count_kv").contents()),
    }
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = parts[-2]
        if kind in heads:
            rows, cols = values.shape
            half = rows // heads[kind] // 2
            values = values.reshape(heads[kind], half, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        yield prefix + names[kind] + ".weight", torch.from_numpy(values.copy())


def load(path):
    reader = GGUFReader(path)

    def field(name):
        return reader.get_field(f"llama.{name}").contents()

    config = LlamaConfig(
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").contents()),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(dict(tensors(reader)), strict=False)
    assert not unexpected and missing == ["lm_head.weight"], (missing, unexpected)
    model.tie_weights()
    return model


def greedy(model, prompt):
    """Continues past end tokens, so that every golden text has the same length. Also the least
    distance between the two highest logits, to tell a near tie from a mistake."""
    ids, past, step, margin = [], None, torch.tensor([prompt]), math.inf
    for _ in range(NEW_TOKENS):
        out = model(step, past_key_values=past, use_cache=True)
        top = out.logits[0, -1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(int(top.indices[0]))
        past, step = out.past_key_values, top.indices[:1].reshape(1, 1)
    return ids, margin


def mean_nll(model, window, first):
    logits = model(torch.tensor([window])).logits[0, first:-1].double()
    targets = torch.tensor(window[first + 1 :])
    return torch.nn.functional.cross_entropy(logits, targets).item()


@torch.no_grad()
def main():
    model_path, text_path, out_path = sys.argv[1:]
    model = load(model_path)
    folder, name = model_path.rsplit("/", 1)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    golden = {"prompts": [], "perplexity": []}
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        continuation, margin = greedy(model, ids)
        print(f"{margin:.5f}", repr(tokenizer.decode(continuation)))
        golden["prompts"].append(
            {"prompt": prompt, "prompt_ids": ids, "ids": continuation, "margin": round(margin, 6)}
        )
    with open(text_path, encoding="utf-8", newline="") as file:
        text_ids = tokenizer(file.read(), add_special_tokens=False).input_ids
    golden["wikitext2_test_tokens"] = len(text_ids)
    for protocol, context, chunks in [("hf", 2048, 2), ("hf", 512, 2), ("llama.cpp", 512, 3)]:
        first = context // 2 if protocol == "llama.cpp" else 0
        nlls = [
            mean_nll(model, text_ids[i * context : (i + 1) * context], first)
            for i in range(chunks)
        ]
        print(protocol, context, nlls)
        golden["perplexity"].append({"protocol": protocol, "context": context, "chunk_nll": nlls})
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
