#!/usr/bin/env bash
# Builds ops_check and what it needs beside it into a folder that runs elsewhere.
#   tests/gpu/ops/build.sh FOLDER [KERNELS-LIBRARY-FOLDER]
# Needs nvcc and a release build of orrery_kernels (default build/release). Objects are
# kept in FOLDER.objects; a source that has not changed is not compiled again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
folder=$1 libraries=${2:-build/release} objects=$1.objects
mkdir -p "$folder" "$objects"
cuda=${CUDA_HOME:-/usr/local/cuda}
flags=(-std=c++20 -O3 -arch=sm_90 -fmad=false --expt-relaxed-constexpr -diag-suppress 554
  -DFMT_USE_CONSTEXPR=1 -Xcompiler -ffp-contract=off -Xptxas -v -I.)
# Whether the object is older than anything that it was made from.
newer() {
  [ -f "$1" ] && [ -f "$1.d" ] || return 0
  local file
  for file in $(sed -e 's/^[^:]*://' -e 's/\\$//' "$1.d"); do
    if [ "$file" -nt "$1" ]; then return 0; fi
  done
  return 1
}
for source in kernels/cuda/*.cu tests/gpu/ops/tune.cu; do
  object=$objects/$(basename "$source" .cu).o
  if newer "$object"; then
    nvcc "${flags[@]}" -MD -MF "$object.d" -c "$source" -o "$object" >"$object.log" 2>&1 || {
      grep -E "error|Error" "$object.log" | head -20
      exit 1
    }
    grep -H "spill" "$object.log" | grep -v " 0 bytes spill stores, 0 bytes spill loads" || true
  fi
done
g++ -std=c++20 -O2 -ffp-contract=off -ffunction-sections -I. -I"$cuda/include" \
  -c tests/gpu/ops/ops_check.cc -o "$objects/ops_check.main.o"
# What the kernels ask of a device is core's, which a build without CUDA has none of. These
# stand before the library, whose own then stay out.
for name in stream cuda_api; do
  g++ -std=c++20 -O2 -DORRERY_CUDA -I. -I"$cuda/include" -c "core/$name.cc" -o "$objects/core_$name.o"
done
g++ -o "$folder/ops_check" "$objects/ops_check.main.o" "$objects/core_stream.o" "$objects/core_cuda_api.o" \
  $(for s in kernels/cuda/*.cu tests/gpu/ops/tune.cu; do echo "$objects/$(basename "$s" .cu).o"; done) \
  "$libraries/liborrery_kernels.a" "$libraries/liborrery_core.a" -Wl,--gc-sections -Wl,--as-needed \
  -L"$cuda/lib64" -lcudart_static -lhwy -lspdlog -lfmt -lpthread -ldl -lrt -Wl,-rpath,'$ORIGIN'
rm -rf "$folder"/*.so* "$folder/libc"
for library in $(ldd "$folder/ops_check" | awk '$3 ~ /^\// {print $3}'); do
  case $(basename "$library") in
    libc.so* | libm.so* | libpthread* | libdl* | librt*) mkdir -p "$folder/libc" && cp -L "$library" "$folder/libc/" ;;
    *) cp -L "$library" "$folder/" ;;
  esac
done
for stub in libpthread.so.0 libdl.so.2 librt.so.1 ld-linux-x86-64.so.2; do
  cp -L "/lib/x86_64-linux-gnu/$stub" "$folder/libc/"
done
cp tests/gpu/ops/run.sh "$folder/run.sh"
chmod +x "$folder/run.sh"
strip "$folder/ops_check"
du -sh "$folder"
