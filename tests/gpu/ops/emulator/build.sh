#!/usr/bin/env bash
# Builds ops_check on the emulator:  tests/gpu/ops/emulator/build.sh FOLDER [LIBRARIES]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."
folder=$1 libraries=${2:-build/release}
mkdir -p "$folder"
flags=(-std=c++20 -O1 -g1 -mavx2 -mfma -ffp-contract=off -w ${SANITIZE:-} -Itests/gpu/ops/emulator "-I$folder/gen" -I.)
mkdir -p "$folder/gen/kernels/cuda"
for header in kernels/cuda/*.cuh; do
  python3 tests/gpu/ops/emulator/host_source.py "$header" >"$folder/gen/$header"
done
objects=()
for source in kernels/cuda/*.cu; do
  name=$(basename "$source" .cu)
  objects+=("$folder/$name.o")
  if [ ! -f "$folder/$name.o" ] || [ -n "$(find "$source" kernels/cuda/*.cuh kernels/cuda/*.h tests/gpu/ops/emulator -newer "$folder/$name.o" -print -quit)" ]; then
    python3 tests/gpu/ops/emulator/host_source.py "$source" >"$folder/$name.cc"
    nice -n 19 g++ "${flags[@]}" -c "$folder/$name.cc" -o "$folder/$name.o"
  fi
done
echo 'namespace orrery::ops_check { void tune() {} }' >"$folder/tune.cc"
defines=(-DORRERY_EMULATED)
[ -f kernels/cuda/attention.cu ] && defines+=(-DORRERY_ATTENTION)
[ -f kernels/cuda/attention_backward.cu ] && defines+=(-DORRERY_ATTENTION_BACKWARD)
[ -f kernels/cuda/sampling.cu ] && defines+=(-DORRERY_SAMPLING)
nice -n 19 g++ "${flags[@]}" "${defines[@]}" tests/gpu/ops/ops_check.cc "$folder/tune.cc" "${objects[@]}" -o "$folder/ops_check" \
  "$libraries/liborrery_kernels.a" "$libraries/liborrery_core.a" -Wl,--as-needed -lhwy -lspdlog -lfmt -lpthread
