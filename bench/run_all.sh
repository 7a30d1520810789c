#!/usr/bin/env bash
# Orrery beside llama.cpp, transformers and TRL on this machine; prints the table of ratios and
# writes bench/RESULTS.md.
#   bench/run_all.sh [--venv DIR] [--llama BUILD] [--quick] [--only CASE,...]        (--help lists the cases)
# Build ours first: cmake --build --preset release --target orrery bench_matmul; the peers:
# bench/peers/setup.sh. An idle machine, 16 GB of memory free, about 65 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh
mpi_environment
exec python3 bench/peers/run_all.py "$@"
