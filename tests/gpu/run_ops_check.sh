#!/usr/bin/env bash
# Builds the ops check (tests/gpu/ops/ops_check.cc) from the sources alone and runs it:
# the f32 ops on the GPU against the CPU's, bit for bit.
#   tests/gpu/run_ops_check.sh [FOLDER] [--compile-only] [STAGE ...]
# FOLDER keeps the objects and the program (default build/gpu_ops); a source is compiled
# again when it, a file that it includes or its command has changed, by as many
# compilers at once as $CMAKE_BUILD_PARALLEL_LEVEL says (default: one a CPU). Each stage
# is a process of its own; without STAGE, all that `ops_check stages` prints.
#   --compile-only   needs no device
# The build has the same check on a CPU: ops_check_emulated (docs/cuda.md).
# Exit code 0: no bit differs; 1: some do, or a stage failed; 77: nvcc or a device of
# compute capability 8.0 or later is absent, and nothing was compiled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=build/gpu_ops mode=
case "${1:-}" in
  -h | --help)
    sed -n '2,15s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  "" | --*) ;;
  *)
    folder=$1
    shift
    ;;
esac
case "${1:-}" in
  --compile-only)
    mode=$1
    shift
    ;;
  -*)
    echo "error: no option '$1'; tests/gpu/run_ops_check.sh --help lists them"
    exit 2
    ;;
esac

cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || nvcc=$cuda/bin/nvcc
if [ ! -x "$nvcc" ]; then
  echo "skipped: nvcc is absent (neither on the PATH nor $nvcc); set CUDA_HOME to CUDA's folder"
  exit 77
fi
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
capability=9.0
if [ -z "$mode" ]; then
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 || true)
  if ! [[ "$capability" =~ ^([89]|[1-9][0-9])\.[0-9]$ ]]; then
    echo "skipped: no device of compute capability 8.0 or later (nvidia-smi finds ${capability:-none})"
    exit 77
  fi
fi

host=$folder/host built=$folder/device
mkdir -p "$host" "$built"
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
if [ -d third_party ]; then  # in a bundle (tools/bundle.sh), which carries them
  read -r -a packages <<<"$(cat third_party/flags) -isystem third_party/include"
  libraries=(-Lthird_party/lib "-Wl,-rpath-link,$PWD/../lib" -lspdlog -lfmt -lhwy)
  export LD_LIBRARY_PATH="$PWD/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
else
  read -r -a packages <<<"$(pkg-config --cflags spdlog fmt libhwy)"
  read -r -a libraries <<<"$(pkg-config --libs spdlog fmt libhwy)"
fi
cxx=(g++ -std=c++20 -ffp-contract=off -pthread -Wall -Wextra -Wno-missing-field-initializers)

# Whether an object is older than anything that it was made from.
stale() {
  [ -f "$1" ] && [ -f "$1.d" ] || return 0
  local file
  for file in $(sed -e 's/^[^:]*://' -e 's/\\$//' "$1.d"); do
    if [ ! -e "$file" ] || [ "$file" -nt "$1" ]; then return 0; fi
  done
  return 1
}
# compile OBJECT COMMAND ...: its output goes to OBJECT.log, and is shown if it fails.
compile() {
  local object=$1
  shift
  if [ "$*" = "$(cat "$object.command" 2>/dev/null)" ] && ! stale "$object"; then return 0; fi
  "$@" -MD -MF "$object.d" -o "$object" >"$object.log" 2>&1 || {
    rm -f "$object"
    cat "$object.log"
    return 1
  }
  echo "$*" >"$object.command"
}
# Lines of words: an object, and the command that makes it.
compile_all() {
  xargs -P "$jobs" -I{} bash -c 'compile $1' _ {}
}
export -f stale compile

object() { echo "$1/$(echo "${2%.*}" | tr / _).o"; }
# Of core what kernels ask of a device, with CUDA.
device_sources=(core/stream.cc core/cuda_api.cc core/upload_ring.cc)
host_sources() {
  find core -name '*.cc' ! -name stream.cc ! -name cuda_api.cc ! -name upload_ring.cc ! -name sha256.cc ! -name file.cc ! -name 'json_*.cc' \
    ! -name durable_file.cc ! -name lfs_pointer.cc
  find kernels -name '*.cc'
  echo learners/token_loss.cc
}
objects=()
for source in $(host_sources); do
  objects+=("$(object "$host" "$source")")
  echo "${objects[-1]} ${cxx[*]} ${packages[*]} -I. -O2 -c $source"
done >"$host/commands"
compile_all <"$host/commands" || exit 1
rm -f "$host/libhost.a"
ar qc "$host/libhost.a" "${objects[@]}"

objects=()
flags=(-std=c++20 -O3 "-arch=sm_${capability/./}" -fmad=false --expt-relaxed-constexpr -diag-suppress 554
  -DFMT_USE_CONSTEXPR=1 -Xcompiler -ffp-contract=off -Xptxas -v -I.)
for source in kernels/cuda/*.cu learners/cuda/*.cu tests/gpu/ops/tune.cu; do
  objects+=("$(object "$built" "$source")")
  echo "${objects[-1]} $nvcc ${flags[*]} ${packages[*]} -c $source"
done >"$built/commands"
objects+=("$built/ops_check.o")
echo "$built/ops_check.o ${cxx[*]} ${packages[*]} -I. -O2 -isystem $cuda/include -c tests/gpu/ops/ops_check.cc" \
  >>"$built/commands"
for source in "${device_sources[@]}"; do
  objects+=("$(object "$built" "$source")")
  echo "${objects[-1]} ${cxx[*]} ${packages[*]} -I. -O2 -DORRERY_CUDA -isystem $cuda/include -c $source" \
    >>"$built/commands"
done
link=("-L$cuda/lib64" -lcudart_static -ldl -lrt)
compile_all <"$built/commands" || exit 1
g++ -pthread -o "$built/ops_check" "${objects[@]}" "$host/libhost.a" "${link[@]}" \
  "${libraries[@]}"
[ "$mode" != --compile-only ] || exit 0

stages=("$@")
[ $# -gt 0 ] || mapfile -t stages < <("$built/ops_check" stages)
failed=()
for stage in "${stages[@]}"; do
  printf '\n## %s\n' "$stage"
  rc=0
  timeout 600 "$built/ops_check" "$stage" || rc=$?
  [ $rc -eq 0 ] || failed+=("$stage (exit code $rc)")
done
if [ ${#failed[@]} -gt 0 ]; then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
printf '\n%d stages, no bit differs\n' ${#stages[@]}
