#!/usr/bin/env bash
# Runs the stages of ops_check, the most valuable first, each in a process of its own.
#   run.sh [STAGE ...]       results: stdout, and $OUT/ops_check.txt where OUT is set
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
stages=("$@")
[ $# -gt 0 ] || stages=(device attention_backward attention_forward sampling kv
  large_attention large_sampling products rows flat vocabulary large_products large_rows
  large_vocabulary tune)
program=(./ops_check)
if ! ./ops_check 2>/dev/null | grep -q usage; then
  # This system's C library is older than the one that the program was built with.
  program=(./libc/ld-linux-x86-64.so.2 --library-path "$PWD/libc:$PWD:/usr/lib/x86_64-linux-gnu:/usr/lib64:/lib64" ./ops_check)
fi
{
  for stage in "${stages[@]}"; do
    begin=$(date +%s.%N)
    echo "== $stage"
    timeout -k 2 60 "${program[@]}" "$stage" 2>&1
    echo "-- $stage: exit $?, $(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}') s"
  done
} | if [ -n "${OUT:-}" ]; then tee "$OUT/ops_check.txt"; else cat; fi
