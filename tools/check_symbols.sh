#!/bin/sh
# Fails if an object made for one instruction set (kernels_*.o) holds a weak symbol: the linker may
# then pick its body, with that set's instructions, for code that runs on machines without them.
# Usage: check_symbols.sh <library.a>
set -eu
library=$1
objects=$(ar t "$library" | grep '^kernels_' || true)
if [ -z "$objects" ]; then
  echo "check_symbols: $library holds no kernels_*.o" >&2
  exit 1
fi
weak=$(nm -A "$library" | grep ':kernels_' | grep -E ' [wWvVu] ' || true)
if [ -n "$weak" ]; then
  echo "check_symbols: weak symbols in kernels; put inline code in an anonymous namespace:" >&2
  echo "$weak" | c++filt >&2
  exit 1
fi
echo "check_symbols: no weak symbols in" $objects
