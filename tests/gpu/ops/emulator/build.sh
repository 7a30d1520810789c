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
    g++ "${flags[@]}" -c "$folder/$name.cc" -o "$folder/$name.o"
  fi
done
# What the kernels ask of a device is core's, which a build without CUDA has none of. These
# stand before the library, whose own then stay out.
for name in stream cuda_api; do
  objects+=("$folder/core_$name.o")
  g++ "${flags[@]}" -DORRERY_CUDA -c "core/$name.cc" -o "$folder/core_$name.o"
done
echo 'namespace orrery::ops_check { void tune() {} }' >"$folder/tune.cc"
g++ "${flags[@]}" -DORRERY_EMULATED tests/gpu/ops/ops_check.cc "$folder/tune.cc" "${objects[@]}" -o "$folder/ops_check" \
  "$libraries/liborrery_kernels.a" "$libraries/liborrery_core.a" -Wl,--as-needed -lhwy -lspdlog -lfmt -lpthread
