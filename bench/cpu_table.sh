#!/bin/bash
# Prints the table of CPU speed: lowbit against llama.cpp on this machine, in turns, medians, and
# against what the machine can do.
#
# Usage: cpu_table.sh -m Q4_0.gguf [-o OURS]... [-t THREADS] [-n ROUNDS] [-q] THEIRS.gguf...
#   -m  the file that both run (llama.cpp's Q4_0)
#   -o  another model for lowbit (may be repeated), such as its own 4-bit file
#   -t  threads (default: all)        -n  rounds (default: 7)
#   -i  instruction sets of lowbit, separated by commas (default: the best there is)
#   -q  quick: no shapes of Llama 1B and 8B, no kernels
#   THEIRS: llama.cpp's other formats: Q4_1, Q4_K, F16 (llama-quantize makes them)
# Environment: LOWBIT (default: build/cpu/lowbit), LLAMA_BENCH (default: that of
#   bench/peers/llama_cpp.sh), RUN: a prefix such as "chrt -r 1" on a machine that others use too.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
lowbit=${LOWBIT:-$root/build/cpu/lowbit}
llama=${LLAMA_BENCH:-${LLAMA_CPP_DIR:-$HOME/.cache/lowbit/llama.cpp}/build/bin/llama-bench}
run=${RUN:-}
threads=$(nproc) rounds=7 both= quick= isas=
ours=()

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
while getopts m:o:t:n:i:qh option; do
  case $option in
    m) both=$OPTARG ;;
    o) ours+=("$OPTARG") ;;
    t) threads=$OPTARG ;;
    n) rounds=$OPTARG ;;
    i) isas=$OPTARG ;;
    q) quick=1 ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ -n "$both" ] || usage
[ -n "$isas" ] || isas=best

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run_ours ISA MODEL: appends "lowbit ISA|MODEL|pp|tg|MiB|load seconds".
run_ours() {
  local isa=$1
  [ "$isa" = best ] && isa=
  LOWBIT_CPU_ISA=$isa $run "$lowbit" bench latency -m "$2" -p 512 -n 128 -t "$threads" -r 1 \
    --json 2>/dev/null | python3 -c '
import json, sys
row = json.load(sys.stdin)[0]
print("|".join(["lowbit " + row["backend"].split()[1].strip(","), sys.argv[1], *(str(row[k]) for k in
      ("prefill_tok_s", "decode_tok_s", "peak_memory_mib", "load_seconds"))]))' "$2" >>"$log"
}

run_theirs() {
  $run "$llama" -m "$1" -p 512 -n 128 -t "$threads" -r 1 -o json 2>/dev/null | python3 -c '
import json, sys
rows = json.load(sys.stdin)
speed = lambda key: next(r["avg_ts"] for r in rows if r[key] > 0)
print("|".join(["llama.cpp", sys.argv[1], str(speed("n_prompt")), str(speed("n_gen")), "", ""]))
' "$1" >>"$log"
}

for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  for isa in ${isas//,/ }; do
    for model in "$both" "${ours[@]}"; do run_ours "$isa" "$model"; done
  done
  for model in "$both" "$@"; do run_theirs "$model"; done
done

python3 - "$log" "$threads" "$rounds" <<'PYTHON'
import os, statistics, sys

log, threads, rounds = sys.argv[1:]
readings = {}
for line in open(log):
    program, model, *values = line.rstrip("\n").split("|")
    readings.setdefault((program, model), []).append([float(v) if v else None for v in values])
column = lambda key, i: [v[i] for v in readings[key] if v[i] is not None]
median = lambda key, i: statistics.median(column(key, i)) if column(key, i) else None
theirs = [key for key in readings if key[0] == "llama.cpp"]
is_float = lambda key: any(t in os.path.basename(key[1]).lower() for t in ("f16", "f32"))
low = [key for key in theirs if not is_float(key)]
best = [max((median(key, i) for key in low), default=None) for i in (0, 1)]
floats = [median(key, 0) for key in theirs if is_float(key)]
print(f"{threads} threads, medians of {rounds} rounds in turns; ratios to llama.cpp's best low-bit format")
print(f"{'program':16} {'model':34} {'MiB':>6} {'pp512':>8} {'tg128':>8} {'pp ratio':>9} {'tg ratio':>9}"
      f" {'load s':>7} {'peak/file':>9}")
for key in readings:
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(key[1]) for f in fs) \
        if os.path.isdir(key[1]) else os.path.getsize(key[1])
    row = f"{key[0]:16} {os.path.basename(key[1].rstrip('/'))[:34]:34} {size / 2**20:6.0f}"
    row += f" {median(key, 0):8.1f} {median(key, 1):8.1f}"
    if key[0] != "llama.cpp":
        row += "".join(f" {median(key, i) / best[i]:8.2f}x" for i in (0, 1))
        row += f" {median(key, 3):7.2f} {median(key, 2) * 2**20 / size:9.2f}"
    print(row)
for value in floats:
    for key in readings:
        if key[0] != "llama.cpp":
            print(f"prefill of {key[0]} {os.path.basename(key[1].rstrip('/'))} over its F16: {median(key, 0) / value:.2f}x")
PYTHON

[ -n "$quick" ] && exit 0
echo
$run "$lowbit" bench roofline -t "$threads" 2>/dev/null
for shape in llama-3.2-1b llama-3.1-8b; do
  $run "$lowbit" bench latency --shape $shape --random-weights --format q4_0 -p 64 -n 16 -r 3 \
    -t "$threads" 2>/dev/null | tail -1
done
for sequences in 4 16 64; do
  $run "$lowbit" bench latency -m "$both" -p 16 -n 64 -r 2 -t "$threads" --sequences $sequences \
    2>/dev/null | tail -1
done
$run "$lowbit" bench kernels --only "llama-8b down_proj" --tokens 1,512 -t "$threads" 2>/dev/null |
  sed -n '/^weight/,$p'
