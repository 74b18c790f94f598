#!/bin/bash
# Compares lowbit with llama.cpp on this machine: builds llama.cpp from the source distribution of
# llama-cpp-python, then runs its llama-bench and `lowbit bench latency` in turns, so that both see
# the same neighbours, and prints medians and ratios.
#
# Usage: llama_cpp.sh [-m OURS.gguf] [-t THREADS] [-n ROUNDS] [-p PROMPT] [-g GENERATE] THEIRS.gguf...
#   -m  the model that lowbit runs (default: the first of THEIRS)
#   -l  the lowbit program (default: build/cpu/lowbit)
# Environment: LLAMA_CPP_DIR, where llama.cpp is kept (default: ~/.cache/lowbit/llama.cpp).
#
# Files in other formats for THEIRS: $LLAMA_CPP_DIR/build/bin/llama-quantize --allow-requantize
#   IN.gguf OUT.gguf Q4_0
set -euo pipefail

version=0.3.36
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${LLAMA_CPP_DIR:-$HOME/.cache/lowbit/llama.cpp}
lowbit=$root/build/cpu/lowbit
threads=$(nproc) rounds=7 prompt=512 generate=128 ours=

while getopts m:t:n:p:g:l:h option; do
  case $option in
    m) ours=$OPTARG ;;
    t) threads=$OPTARG ;;
    n) rounds=$OPTARG ;;
    p) prompt=$OPTARG ;;
    g) generate=$OPTARG ;;
    l) lowbit=$OPTARG ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
ours=${ours:-$1}

# g++ 12 declares only 8 bytes of the tile configuration as read by ldtilecfg and may store the rest
# after it, which ends in SIGILL: a barrier goes before the call.
add_tile_barrier() {
  local file
  file=$(grep -rl '_tile_loadconfig(' "$1/ggml/src/ggml-cpu" --include='*.cpp' | head -1)
  [ -z "$file" ] && return
  grep -q 'lowbit: barrier' "$file" && return
  sed -i 's|^\( *\)\(_tile_loadconfig(\([^)]*\));\)|\1__asm__ volatile("" : : "r"(\3) : "memory");  // lowbit: barrier\n\1\2|' "$file"
}

build() {
  [ -x "$dir/build/bin/llama-bench" ] && return
  mkdir -p "$dir"
  echo "building llama.cpp of llama-cpp-python $version in $dir" >&2
  # No build isolation and no dependencies: only the archive is wanted.
  python3 -m pip download --quiet --no-deps --no-binary=:all: --no-build-isolation \
    --dest "$dir" "llama-cpp-python==$version" >"$dir/download.log" 2>&1 ||
    [ -e "$(echo "$dir"/llama_cpp_python-$version.tar.gz)" ] ||
    { cat "$dir/download.log" >&2; exit 1; }
  tar -xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir"
  local source=$dir/llama_cpp_python-$version/vendor/llama.cpp
  add_tile_barrier "$source"
  cmake -S "$source" -B "$dir/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF >"$dir/configure.log"
  cmake --build "$dir/build" --parallel --target llama-bench llama-quantize >"$dir/build.log"
}

# Prints "pp tg" in tokens per second.
run_theirs() {
  "$dir/build/bin/llama-bench" -m "$1" -p "$prompt" -n "$generate" -t "$threads" -r 1 -o json \
    2>/dev/null | python3 -c '
import json, sys
rows = json.load(sys.stdin)
pick = lambda key: next(r["avg_ts"] for r in rows if r[key] > 0)
print(pick("n_prompt"), pick("n_gen"))'
}

run_ours() {
  "$lowbit" bench latency -m "$ours" -p "$prompt" -n "$generate" -t "$threads" -r 1 --json |
    python3 -c '
import json, sys
row = json.load(sys.stdin)[0]
print(row["prefill_tok_s"], row["decode_tok_s"])'
}

build
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  echo "lowbit|$ours|$(run_ours)" >>"$log"
  for model in "$@"; do echo "llama.cpp|$model|$(run_theirs "$model")" >>"$log"; done
done

python3 - "$log" "$prompt" "$generate" "$threads" "$rounds" <<'PYTHON'
import collections, os, statistics, sys

log, prompt, generate, threads, rounds = sys.argv[1:]
readings = collections.OrderedDict()
for line in open(log):
    program, model, speeds = line.rstrip("\n").split("|")
    readings.setdefault((program, model), []).append([float(s) for s in speeds.split()])
median = {key: [statistics.median(v[i] for v in values) for i in (0, 1)]
          for key, values in readings.items()}
ours = next(value for key, value in median.items() if key[0] == "lowbit")
print(f"{threads} threads, medians of {rounds} interleaved rounds")
print(f"{'program':10} {'model':44} {'MiB':>6} {'pp' + prompt:>9} {'tg' + generate:>9}"
      f" {'pp ratio':>9} {'tg ratio':>9}")
for (program, model), speed in median.items():
    size = os.path.getsize(model) / 2**20 if os.path.isfile(model) else float("nan")
    ratios = [f"{ours[i] / speed[i]:9.2f}" if program != "lowbit" else " " * 9 for i in (0, 1)]
    print(f"{program:10} {os.path.basename(model)[:44]:44} {size:6.0f} {speed[0]:9.1f}"
          f" {speed[1]:9.1f} {ratios[0]} {ratios[1]}")
PYTHON
