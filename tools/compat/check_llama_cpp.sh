#!/bin/sh
# Runs llama.cpp on GGUF files written by `lowbit quantize`: perplexity of a text, and a greedy answer.
# Usage: check_llama_cpp.sh LLAMA_BIN_FOLDER TEXT FILE.gguf...
set -eu
bin=$1
text=$2
shift 2
for file in "$@"; do
  echo "== $file"
  "$bin/llama-perplexity" -m "$file" -f "$text" -c 512 --chunks "${CHUNKS:-4}" -t 2 2>&1 |
    grep -E 'ftype|file size|Final estimate|error' || true
  "$bin/llama-simple" -m "$file" -n 24 "The capital of France is" 2>/dev/null | head -c 400
  echo
done
