#!/usr/bin/env python3
"""Runs lm-eval's `local-completions` against `lowbit serve` and the same task with transformers, and
compares the log-likelihood of every answer: they may differ by 1e-3 at most, as may nothing else.

  pip install "lm-eval[api]==0.4.13" torch transformers datasets
  tools/compat/lm_eval/check.py -m SmolLM2-135M-Instruct.Q4_1.gguf

A GGUF file is first expanded to 16 bits, which both programs load: what is compared is the
arithmetic, not the rounding of weights. Needs no network. Exits with 1 if something differs.
"""

import argparse
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
TASK = "lowbit_facts"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(process, port):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("the server does not get ready")


def write_task(folder):
    text = (HERE / f"{TASK}.yaml").read_text()
    (folder / f"{TASK}.yaml").write_text(
        text.replace("test: questions.jsonl", f"test: {HERE / 'questions.jsonl'}"))


def answers(model, model_args, folder, limit):
    """{(question, choice): (log-likelihood, greedy)}, and the metrics."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    result = lm_eval.simple_evaluate(model=model, model_args=model_args, tasks=[TASK], limit=limit,
                                     task_manager=TaskManager(include_path=str(folder)),
                                     batch_size=1, log_samples=True, bootstrap_iters=0)
    found = {}
    for sample in result["samples"][TASK]:
        for i, response in enumerate(sample["filtered_resps"]):
            found[sample["doc_id"], i] = (float(response[0]), bool(response[1]))
    metrics = {key: value for key, value in result["results"][TASK].items()
               if key.startswith("acc") and "stderr" not in key}
    return found, metrics


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="a .gguf file, or a folder in 16 bits")
    parser.add_argument("--lowbit", default=str(ROOT / "build/cpu/lowbit"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_task(folder)
        model = options.model
        if model.endswith(".gguf"):
            model = str(folder / "f16")
            subprocess.run([options.lowbit, "quantize", "--no-progress", "-m", options.model, "-o",
                            model, "--format", "safetensors:f16"], check=True)
        theirs, metrics = answers("hf", f"pretrained={model},dtype=float32,device=cpu", folder,
                                  options.limit)
        print("transformers:", metrics)
        port = free_port()
        server = subprocess.Popen([options.lowbit, "serve", "-q", "-m", model, "--port", str(port),
                                   "--activations", "f32", "--cache-type", "f32", "-c", "2048",
                                   "--served-model-name", "served"])
        try:
            wait_ready(server, port)
            ours, metrics = answers(
                "local-completions",
                f"model=served,base_url=http://127.0.0.1:{port}/v1/completions,tokenizer={model},"
                "num_concurrent=4,tokenized_requests=True", folder, options.limit)
        finally:
            server.terminate()
            server.wait()
    print("lowbit:      ", metrics)
    differences = [abs(ours[key][0] - theirs[key][0]) for key in theirs]
    other_greedy = sum(ours[key][1] != theirs[key][1] for key in theirs)
    print(f"{len(theirs)} log-likelihoods: largest difference {max(differences):.2e}, mean "
          f"{sum(differences) / len(differences):.2e}; {other_greedy} differ in being greedy")
    sys.exit(0 if ours.keys() == theirs.keys() and max(differences) <= options.tolerance
             and other_greedy == 0 else 1)


if __name__ == "__main__":
    main()
