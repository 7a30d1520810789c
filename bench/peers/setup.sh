#!/usr/bin/env bash
# Makes what bench/run_all.sh compares with.
#   bench/peers/setup.sh [VENV]               a virtual environment with PyTorch, transformers and TRL (default build/peers)
#   bench/peers/setup.sh --llama CHECKOUT     builds llama.cpp, for this CPU, in CHECKOUT/build-peers; may follow VENV
# llama.cpp: git clone https://github.com/ggml-org/llama.cpp; the state of October 2026 (commit 0c1e570) was measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/lib.sh

venv="" llama=""
while [ $# -gt 0 ]; do
  case "$1" in
    --llama) [ $# -ge 2 ] || die "--llama needs the path of a checkout"; llama=$2; shift 2 ;;
    -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) die "$1: unknown; see --help" ;;
    *) venv=$1; shift ;;
  esac
done

if [ -n "$venv" ] || [ -z "$llama" ]; then
  venv=${venv:-build/peers}
  [ -x "$venv/bin/python" ] || run python3 -m venv "$venv"
  run "$venv/bin/pip" install -r bench/peers/requirements.txt
fi
if [ -n "$llama" ]; then
  [ -f "$llama/CMakeLists.txt" ] || die "$llama holds no CMakeLists.txt: give a checkout of llama.cpp"
  run cmake -S "$llama" -B "$llama/build-peers" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF
  run cmake --build "$llama/build-peers" -j "$(nproc)" --target llama-batched-bench llama-simple
  echo "built: give bench/run_all.sh --llama $llama/build-peers"
fi
