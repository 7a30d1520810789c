#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the whole test suite and the lint checks.
#   tools/check.sh            everything but the tests labelled slow: what CI runs
#   tools/check.sh --slow     with the slow tests
#   tools/check.sh --quick    without clang-tidy and the sanitizer builds
# Stops at the first stage that fails, with a summary. A second call redoes only what changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh

quick=false
left_out=(-LE slow)
case "${1:-}" in
  "") ;;
  --slow) left_out=() ;;
  --quick) quick=true ;;
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' tools/check.sh
    exit 0
    ;;
  *)
    echo "error: unknown argument '$1'; tools/check.sh [--slow | --quick]" >&2
    exit 2
    ;;
esac

jobs=$(nproc)
stage=start
stage_start=$SECONDS
summary=()

begin() {
  end_stage ok
  stage=$1
  stage_start=$SECONDS
  printf '\n== %s ==\n' "$stage"
}

end_stage() {
  [ "$stage" = start ] || summary+=("$(printf '%-28s %-7s %5d s' "$stage" "$1" $((SECONDS - stage_start)))")
}

finish() {
  local code=$?
  if [ "$code" -eq 0 ]; then end_stage ok; else end_stage FAILED; fi
  printf '\n== summary ==\n'
  printf '%s\n' "${summary[@]}"
  if [ "$code" -eq 0 ]; then
    echo "check: passed in $SECONDS s"
  else
    echo "check: FAILED in stage '$stage' (exit code $code)"
  fi
}
trap finish EXIT

house_files() {  # every file of the house with one of these endings
  find . -path './.*' -prune -o -path './build*' -prune -o -type f -regex ".*\\.\\($1\\)" -printf '%P\n' | sort
}

check_format() {
  local wrong cpp='h\|cc\|cu\|cuh'
  echo "+ clang-format-14 --dry-run -Werror ($(house_files "$cpp" | wc -l) files)"
  wrong=$(house_files "$cpp" |
    xargs -P "$jobs" -I{} bash -c 'clang-format-14 --dry-run -Werror {} 2>/dev/null || printf " %s" {}')
  [ -z "$wrong" ] || die "not formatted; run: clang-format-14 -i$wrong"
}

check_scripts() {
  local script
  echo "+ syntax of the bash and Python scripts"
  for script in $(house_files sh) .ci/run; do bash -n "$script"; done
  house_files py |
    xargs -r python3 -c 'import ast, sys; [ast.parse(open(name, "rb").read(), name) for name in sys.argv[1:]]'
}

# The command with the CUDA backend: objects, what tools/lint/ptx_lint.py says of them, a start.
check_cuda() {
  if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
    echo "nvcc is absent (neither on the PATH nor in /usr/local/cuda/bin): the CUDA backend is not compiled here"
    return
  fi
  grep -qs '^ORRERY_CUDA_CHECK:BOOL=ON' build/release/CMakeCache.txt ||
    run cmake --preset release -DORRERY_CUDA_CHECK=ON
  run cmake --build --preset release -j "$jobs" --target cuda_check
  run build/release/bin/cuda_check --version
  [ -e /dev/nvidiactl ] || check_no_driver
}

check_no_driver() {
  local said code=0
  said=$(run build/release/bin/cuda_check generate --model experiments/quickstart_model --prompt 1+1= --device cuda 2>&1) || code=$?
  echo "$said"
  [ "$code" -eq 2 ] && grep -q 'there is no NVIDIA driver on this machine' <<<"$said" ||
    die "a machine without a driver is to get one clear error and exit code 2, not $code"
}

begin "packages"
install_packages check
mpi_environment

begin "format and layering"
run python3 tools/lint/layering.py
run python3 tools/lint/config_reference.py --check
check_format
check_scripts

begin "build: release"
configure release
run cmake --build --preset release -j "$jobs"

begin "headers stand alone"
run cmake --build --preset release -j "$jobs" --target headers

begin "build: CUDA"
check_cuda

begin "tests: release"
run ctest --preset release -j "$jobs" "${left_out[@]}"

if ! $quick; then
  begin "clang-tidy"
  run tools/lint/tidy.py --jobs "$jobs"

  begin "build: address, undefined"
  configure asan-ubsan
  run cmake --build --preset asan-ubsan -j "$jobs" --target unit_tests fuzz_targets

  begin "tests: address, undefined"
  run ctest --preset asan-ubsan -j "$jobs" -L unit

  begin "fuzzing"
  run tools/fuzz.sh 30

  begin "tests: thread"
  configure tsan
  run cmake --build --preset tsan -j "$jobs" --target unit_tests
  run ctest --preset tsan -j "$jobs" -L unit
fi
