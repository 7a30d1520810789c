#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz, each for some seconds, as many at once as there are CPUs.
#   tools/fuzz.sh SECONDS [NAME ...]     all targets, or these: safetensors, tokenizer, config ...
# Starts from tests/fuzz/corpus/NAME; inputs that reach new code are kept in build/fuzz/corpus/NAME and used again. A
# finding (a crash, a sanitizer's report, an exception that is no Error, more than 5 s or 2 GB) is written to
# build/fuzz/findings, its report is shown, and the exit code is 1. CONTRIBUTING.md says how to reproduce one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh

case "${1:-}" in
  "" | -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' tools/fuzz.sh
    [ $# -gt 0 ] || exit 2
    exit 0
    ;;
  *[!0-9]*) die "'$1' is no number of seconds; tools/fuzz.sh SECONDS [NAME ...]" ;;
esac
seconds=$1
shift
programs=build/asan-ubsan/fuzz
out=build/fuzz

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for source in tests/fuzz/*_fuzz.cc; do
    name=${source##*/}
    names+=("${name%_fuzz.cc}")
  done
fi
for name in "${names[@]}"; do
  [ -x "$programs/${name}_fuzz" ] ||
    die "$programs/${name}_fuzz: not there; cmake --preset asan-ubsan && cmake --build --preset asan-ubsan --target fuzz_targets"
  mkdir -p "$out/corpus/$name" "$out/findings"
done

memory=/dev/shm  # the targets' files; every input writes some
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$memory/orrery_fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

fuzz_one() {
  local name=$1 log=$out/$1.log options=() corpus=("$out/corpus/$1") code=0
  [ -f "tests/fuzz/dictionaries/$name.dict" ] && options+=("-dict=tests/fuzz/dictionaries/$name.dict")
  [ -d "tests/fuzz/corpus/$name" ] && corpus+=("tests/fuzz/corpus/$name")
  "$programs/${name}_fuzz" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
    -artifact_prefix="$out/findings/$name-" "${options[@]}" "${corpus[@]}" >"$log" 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then
    printf '%s: FINDING (exit code %d)\n' "$name" "$code"
    grep -vE '^#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD|INITED|READ)' "$log" | tail -n 60
    return 1
  fi
  awk -v name="$name" '/number_of_executed_units/ { n = $2 } /new_units_added/ { new = $2 } /peak_rss_mb/ { mb = $2 }
    / cov: / { for (i = 1; i < NF; ++i) if ($i == "cov:") cov = $(i + 1) }
    END { printf "%-12s %9d inputs, %5d edges covered, %4d kept, %4d MB\n", name, n, cov, new, mb }' "$log"
}
export -f fuzz_one
export programs out seconds

printf '%s\n' "${names[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz_one {}' ||
  die "the inputs of the findings are in $out/findings"
