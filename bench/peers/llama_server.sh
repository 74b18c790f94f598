#!/bin/bash
# Compares `lowbit serve` with llama.cpp's llama-server on this machine: the same prompts (as token
# ids) and lengths, as many requests in flight as there are slots, sent by one load generator
# (`lowbit bench throughput --url`). Each round starts both programs in turns, so that both see the
# same neighbours; prints medians and ratios.
#
# Usage: llama_server.sh [options] THEIRS.gguf [OURS.gguf...]
#   -l FILE   the lowbit program (default: build/cpu/lowbit)
#   -t N      threads (default: all)             -n N  rounds (default: 3)
#   -c N      requests in flight, and slots (64) -p N  requests a round (128)
#   -i N      tokens of a prompt (100)           -o N  tokens of an answer (64)
#   -T X      temperature (default: 0.8, with both programs' usual top-k 40, top-p 0.95, min-p 0.05)
#   -r        run everything with real-time priority (chrt; needs root)
# Without OURS, lowbit runs THEIRS.
# Environment: LLAMA_SERVER, the llama-server program (default: the one on the PATH);
#   LLAMA_SERVER_FLAGS, more options for it; LOWBIT_SERVE_FLAGS, more for lowbit serve.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
lowbit=$root/build/cpu/lowbit
llama_server=${LLAMA_SERVER:-llama-server}
threads=$(nproc) rounds=3 slots=64 prompts=128 input=100 output=64 temperature=0.8
priority=()

usage() { sed -n '2,18s/^# \{0,1\}//p' "$0"; }
while getopts l:t:n:c:p:i:o:T:rh option; do
  case $option in
    l) lowbit=$OPTARG ;;
    t) threads=$OPTARG ;;
    n) rounds=$OPTARG ;;
    c) slots=$OPTARG ;;
    p) prompts=$OPTARG ;;
    i) input=$OPTARG ;;
    o) output=$OPTARG ;;
    T) temperature=$OPTARG ;;
    r) priority=(chrt -r 1) ;;
    *) usage; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 2; }
theirs=$1
shift
[ $# -gt 0 ] || set -- "$theirs"
command -v "$llama_server" >/dev/null || { echo "error: no llama-server; set LLAMA_SERVER" >&2; exit 1; }

work=$(mktemp -d)
server=
stop_server() {
  [ -z "$server" ] && return
  kill -9 "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
trap 'stop_server; rm -rf "$work"' EXIT

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until /health says 200.
wait_ready() {
  for _ in $(seq 600); do
    curl -sf -o "$work/health" "http://127.0.0.1:$1/health" && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "error: the server did not start:" >&2
  tail -20 "$work/server.log" >&2
  exit 1
}

# measure NAME MODEL PORT: appends a line "name|model|json" to the log.
measure() {
  wait_ready "$3"
  # A first round warms up: pages, caches, and whatever a program makes when it first needs it.
  for count in 4 "$prompts"; do
    "${priority[@]}" "$lowbit" bench throughput -m "$theirs" --url "http://127.0.0.1:$3" \
      --prompt-ids --num-prompts "$count" --max-concurrency "$slots" --input-len "$input" \
      --output-len "$output" --temperature "$temperature" --seed "$((round * 1000 + count))" \
      --extra-body '{"top_k": 40, "top_p": 0.95, "min_p": 0.05}' --no-progress --json \
      >"$work/result.json" || { cat "$work/result.json" >&2; tail -5 "$work/server.log" >&2; exit 1; }
  done
  echo "$1|$2|$(tr -d '\n' <"$work/result.json")" >>"$work/log"
  stop_server
}

context=$((input + output + 8))
port=$(free_port)
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  for model in "$@"; do
    "${priority[@]}" "$lowbit" serve -q -m "$model" --port "$port" -t "$threads" -c "$context" \
      --max-num-seqs "$slots" ${LOWBIT_SERVE_FLAGS:-} >"$work/server.log" 2>&1 &
    server=$!
    measure lowbit "$model" "$port"
  done
  "${priority[@]}" "$llama_server" -m "$theirs" --port "$port" -t "$threads" -tb "$threads" \
    -np "$slots" -c $((context * slots)) --no-webui ${LLAMA_SERVER_FLAGS:-} >"$work/server.log" 2>&1 &
  server=$!
  measure llama-server "$theirs" "$port"
done

python3 - "$work/log" "$threads" "$slots" "$prompts" "$input" "$output" <<'PYTHON'
import collections, json, os, statistics, sys

log, threads, slots, prompts, input_len, output_len = sys.argv[1:]
runs = collections.OrderedDict()
for line in open(log):
    program, model, result = line.rstrip("\n").split("|", 2)
    runs.setdefault((program, model), []).append(json.loads(result))

def median(rows, *path):
    values = []
    for row in rows:
        for key in path:
            row = row[key]
        values.append(row)
    return statistics.median(values)

columns = [("out tok/s", ("output_tok_s",)), ("total tok/s", ("total_tok_s",)),
           ("TTFT p50", ("ttft_ms", "p50")), ("TTFT p99", ("ttft_ms", "p99")),
           ("TPOT p50", ("tpot_ms", "p50")), ("ITL p99", ("itl_ms", "p99"))]
table = {key: [median(rows, *path) for _, path in columns] for key, rows in runs.items()}
theirs = next(value for key, value in table.items() if key[0] == "llama-server")
print(f"{prompts} requests of {input_len} + {output_len} tokens, {slots} in flight, {threads} threads; "
      f"medians of {len(next(iter(runs.values())))} rounds in turns, latencies in ms")
print(f"{'program':13} {'model':38}" + "".join(f"{name:>12}" for name, _ in columns) + f"{'speed-up':>10}")
for (program, model), values in table.items():
    failed = sum(row["failed"] for row in runs[program, model])
    print(f"{program:13} {os.path.basename(model)[:38]:38}" + "".join(f"{v:12.1f}" for v in values) +
          f"{values[0] / theirs[0]:10.2f}" + (f"  ({failed} FAILED)" if failed else ""))
PYTHON
