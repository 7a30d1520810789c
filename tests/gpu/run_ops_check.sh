#!/usr/bin/env bash
# Holds the ops of the CUDA backend against the CPU's, bit for bit: each row of the case
# tables that is for an oracle, and the shapes of a model of 0.5B parameters, with times.
#   tests/gpu/run_ops_check.sh [--emulate] [--folder FOLDER] [--libraries BUILD] [STAGE ...]
# BUILD has liborrery_core.a and liborrery_kernels.a of a build without CUDA (default
# build/release). FOLDER keeps what is built here (default BUILD/ops_check, or
# BUILD/ops_emulated).
# --emulate: the kernels as host code, their threads as fibers; smaller shapes, no times.
# STAGE: device products rows flat vocabulary kv attention_forward attention_backward
#   sampling large_products large_rows large_vocabulary large_attention large_sampling,
#   all by default; tune: times of the products' tiles.
# Exit code 0: no bit differs; 77: nvcc or a device is absent, or AVX2 for the emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
emulate=0 folder="" libraries=build/release
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,14s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --emulate) emulate=1 ;;
    --folder) folder=$2 && shift ;;
    --libraries) libraries=$2 && shift ;;
    *) break ;;
  esac
  shift
done
if [ ! -f "$libraries/liborrery_kernels.a" ]; then
  echo "$libraries has no liborrery_kernels.a: build it first, cmake --build --preset release"
  exit 1
fi
if [ $emulate -eq 1 ]; then
  if ! grep -q avx2 /proc/cpuinfo; then
    echo "skipped: the emulator is built for AVX2, which this CPU lacks"
    exit 77
  fi
  folder=${folder:-$libraries/ops_emulated}
  tests/gpu/ops/emulator/build.sh "$folder" "$libraries"
  cp tests/gpu/ops/run.sh "$folder/run.sh"
  STAGE_SECONDS=${STAGE_SECONDS:-1200} exec "$folder/run.sh" "$@"
fi
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
if ! command -v nvcc >/dev/null; then
  echo "skipped: nvcc is absent (neither on the PATH nor in CUDA_HOME)"
  exit 77
fi
if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: there is no NVIDIA device here; --emulate needs none"
  exit 77
fi
folder=${folder:-$libraries/ops_check}
tests/gpu/ops/build.sh "$folder" "$libraries"
exec "$folder/run.sh" "$@"
