#!/usr/bin/env bash
# Builds the self-test of the GPU with nvcc alone and runs it.
#   tests/gpu/run_selftest.sh [FOLDER] [--outputs N]
# FOLDER keeps the program (default build/gpu); it is built again when a source has changed.
# Exit code 77: nvcc or a device of compute capability 9.0 is absent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=build/gpu
case "${1:-}" in
  -h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  "" | --*) ;;
  *)
    folder=$1
    shift
    ;;
esac
program=$folder/gpu_selftest

nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
if [ ! -x "$nvcc" ]; then
  echo "skipped: nvcc is absent (neither on the PATH nor $nvcc); set CUDA_HOME to CUDA's folder"
  exit 77
fi

mkdir -p "$folder"
if [ ! -x "$program" ] ||
  [ -n "$(find tests/gpu core kernels/*.h learners/losses -newer "$program" -type f -print -quit)" ]; then
  "$nvcc" -std=c++20 -O2 -fmad=false --expt-relaxed-constexpr -Werror all-warnings -I. \
    -gencode=arch=compute_90a,code=sm_90a -Xcompiler -ffp-contract=off,-pthread,-Wall,-Wextra \
    tests/gpu/selftest.cu -o "$program.part" >"$folder/nvcc.log" 2>&1 || {
    cat "$folder/nvcc.log"
    exit 1
  }
  mv "$program.part" "$program"
fi
exec "$program" "$@"
