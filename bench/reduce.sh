#!/usr/bin/env bash
# Ordered reduction beside MPI_Allreduce at 2 and 4 ranks (docs/numerics.md, "The same bits on any
# layout").
#   bench/reduce.sh [OPTIONS OF bench_reduce]      e.g. --elements 860000,8000000 --turns 31 --json
# Build first: cmake --build --preset release --target bench_reduce. An idle machine with a core a
# rank; ranks that share cores measure how the operating system takes turns.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh
mpi_environment
for ranks in 2 4; do
  mpirun --oversubscribe --bind-to none -n "$ranks" build/release/bench/bench_reduce "$@"
done
