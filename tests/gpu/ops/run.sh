#!/usr/bin/env bash
# Runs the stages of ops_check, the most valuable first, each in a process of its own.
#   run.sh [STAGE ...]       results: stdout, and $OUT/ops_check.txt where OUT is set
# Exit code 0: no bit differs; 1: some do, or a stage failed; 77: there is no device.
set -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
stages=("$@")
[ $# -gt 0 ] || stages=(attention_backward attention_forward sampling kv large_attention
  large_sampling products rows flat vocabulary large_products large_rows large_vocabulary)
program=(./ops_check)
if [[ $(./ops_check 2>/dev/null) != usage* ]]; then
  # This system's C library is older than the one that the program was built with.
  program=(./libc/ld-linux-x86-64.so.2 --library-path "$PWD/libc:$PWD:/usr/lib/x86_64-linux-gnu:/usr/lib64:/lib64" ./ops_check)
fi
run_stages() {
  local stage begin code worst=0
  for stage in device "${stages[@]}"; do
    begin=$(date +%s.%N) code=0
    echo "== $stage"
    timeout -k 2 "${STAGE_SECONDS:-60}" "${program[@]}" "$stage" 2>&1 || code=$?
    echo "-- $stage: exit $code, $(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}') s"
    [ "$code" -ne 77 ] || return 77
    [ "$code" -eq 0 ] || worst=1
  done
  [ $worst -ne 0 ] || echo "no bit differs"
  return $worst
}
if [ -n "${OUT:-}" ]; then run_stages | tee "$OUT/ops_check.txt"; else run_stages; fi
