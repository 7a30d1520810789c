#!/usr/bin/env bash
# What exactness costs one decode step and one training step (docs/numerics.md, "The same bits on
# any layout").
#   bench/exactness.sh [OPTIONS OF bench_exactness]      e.g. --threads 1 --cases decode:8 --json
# Build first: cmake --build --preset release --target bench_exactness. Several minutes and 6 GB; an
# idle machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec build/release/bench/bench_exactness "$@"
