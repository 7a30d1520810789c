#!/usr/bin/env bash
# What a GPU machine is to show, the most telling first: in the repository, or in an unpacked bundle
# (tools/bundle.sh), where nvcc and its host compiler alone are needed.
#   tools/gpu_suite.sh [--rehearse] [--out FOLDER] [STAGE ...]
# FOLDER (default gpu_suite) gets gpu_suite.md, a table that grows as stages end, and a log of each.
#   device      the GPU, its driver and the CPU
#   selftest    tests/gpu/selftest.cu: tensor cores, copies and f32 functions as defined
#   ops         tests/gpu/run_ops_check.sh: every op has the CPU's bits
#   hashes      quickstart's model, 3 steps of GRPO after SFT on the CPU, then both: the CPU's hash
#   bf16        the same in bf16, against cpu-dot16's hash; the CPU audits what the GPU recorded
#   ranks       2 and 4 ranks on the one GPU, colocated and split: the same hash
#   resume      the run begun on the CPU, continued on the GPU, ended on the CPU: the same hash
#   commands    logprobs, generate and eval print what they print on the CPU
#   sanitizer   compute-sanitizer's memcheck and racecheck of the ops at the tables' shapes
# Stops at the first stage that fails, with what it found: an op's first differing element and its
# case, which ops_check_emulated repeats without a GPU.
#   --rehearse  without a GPU: ops and runs in the emulator (the programs orrery-emulated and
#               ops_check_emulated of the bundle or of build/release; without them, and with
#               $ORRERY_BIN, runs on device=debug), the self-test compiled where nvcc is; the table says so
# $ORRERY_BIN is the command (default: the bundle's, or build/cuda-release's, or build/release's).
# Exit code 0: every stage that ran passed; 1: one did not; 2: bad arguments.
set -uo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rehearse=false out=gpu_suite stages=()
while [ $# -gt 0 ]; do
  case "$1" in
    --rehearse) rehearse=true ;;
    --out)
      [ $# -gt 1 ] || { echo "error: --out needs a folder" >&2; exit 2; }
      out=$2
      shift
      ;;
    -h | --help)
      sed -n '2,25s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    device | selftest | ops | hashes | bf16 | ranks | resume | commands | sanitizer) stages+=("$1") ;;
    *)
      echo "error: no stage or option '$1'; tools/gpu_suite.sh --help lists them" >&2
      exit 2
      ;;
  esac
  shift
done
[ ${#stages[@]} -gt 0 ] || stages=(device selftest ops hashes bf16 ranks resume commands sanitizer)

quickstart=$tree/experiments
if [ -x "$tree/../bin/orrery" ]; then  # a bundle's src/
  bundle=$(cd "$tree/.." && pwd)
  orrery=$bundle/bin/orrery mpirun=$bundle/bin/mpirun quickstart=$bundle/share/quickstart
  emulated=$bundle/bin/orrery-emulated ops_emulated=$bundle/bin/ops_check_emulated
  commit=$(cat "$bundle/COMMIT")
else
  orrery=$tree/build/cuda-release/bin/orrery mpirun=mpirun
  [ -x "$orrery" ] || orrery=$tree/build/release/bin/orrery
  emulated=$tree/build/release/bin/orrery-emulated ops_emulated=$tree/build/release/ops_check_emulated
  commit=$(git -C "$tree" rev-parse HEAD 2>/dev/null || echo unknown)
fi
device=cuda
orrery=${ORRERY_BIN:-$orrery}
if $rehearse && [ -z "${ORRERY_BIN:-}" ] && [ -x "$emulated" ]; then
  orrery=$emulated
  export ORRERY_EMULATOR_MEMORY_MB=${ORRERY_EMULATOR_MEMORY_MB:-256}  # each rank takes all of it
elif $rehearse; then
  device=debug
fi
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
export OMPI_MCA_btl_vader_single_copy_mechanism=none

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
runs=$(mktemp -d "$out/runs.XXXXXX")
building=
trap 'rm -rf "$runs"; [ -z "$building" ] || kill "$building" 2>/dev/null' EXIT
table=$out/gpu_suite.md

# --- runs and what they are compared by ---

# Steps in which some samples are right and some are not, so that gradients are not zero.
short=(trainer.tensorboard=false trainer.save_freq=1 trainer.max_ckpt_to_keep=50 trainer.total_training_steps=3
  trainer.rollout_save_freq=0 sft.total_training_steps=80 sft.optim.lr=5e-3 sft.optim.lr_warmup_steps=5
  data.train_batch_size=4 rollout.n=8 data.val_size=50 data.arithmetic.digits=1 data.arithmetic.flawed_fraction=0
  actor.optim.lr=1e-4 actor.optim.lr_warmup_steps=1)

# train NAME RANKS KEY=VALUE ...: quickstart's short run, in $runs/NAME.
train() {
  local name=$1 ranks=$2 launcher=()
  shift 2
  [ "$ranks" -eq 1 ] || launcher=("$mpirun" --oversubscribe --bind-to none -n "$ranks")
  echo "+ $name: $ranks ranks, $*"
  timeout 120 "${launcher[@]}" "$orrery" train "$quickstart/quickstart.yaml" "run_dir=$runs/$name" "${short[@]}" "$@" \
    </dev/null 2>&1
}
hash_of() { timeout 60 "$orrery" ckpt hash "$runs/$1" | tail -1; }
# same NAME WANTED: whether that run ended with this hash.
same() {
  local got
  got=$(hash_of "$1") || return 1
  if [ -z "$2" ] || [ "$got" != "$2" ]; then
    echo "DIFFERENT: $1 ended with $got, the CPU's run with $2"
    return 1
  fi
  echo "equal: $1 ended with the CPU's $2"
}
# The CPU's run, made once; its hash goes to $wanted.
cpu_run() {
  [ -d "$runs/cpu" ] || train cpu 1 device=cpu || return 1
  wanted=$(hash_of cpu) || return 1
}
# Whether every step of RL moved the weights, or equal hashes would say little.
gradients_flow() {
  local moving
  moving=$(grep -o '"actor/grad_norm":[0-9.e+-]*' "$runs/$1/metrics.jsonl" | grep -cv ':0\(\.0*\)\?$')
  echo "$moving of 3 steps of $1 have a gradient"
  [ "$moving" -eq 3 ]
}
# compare NAME FILE FILE: whether they are equal but for times and paths.
compare() {
  local file
  for file in "$2" "$3"; do
    sed -e 's/"[a-z_]*\(_s\|seconds\)":[0-9.e+-]*,*//g' -e 's/,*"out":"[^"]*"//' "$file" >"$file.plain" || return 1
  done
  if [ ! -s "$2.plain" ] || ! cmp "$2.plain" "$3.plain"; then
    echo "DIFFERENT: what $1 prints on the CPU and on $device"
    diff "$2.plain" "$3.plain" | head -6 | cut -c1-400
    return 1
  fi
  echo "equal: $1, $(wc -c <"$2") bytes"
}

# --- stages; each prints what it does, and ends with 0, 1, or 77 where it has no place here ---

stage_device() {
  "$orrery" --version || return 1
  grep -m1 'model name' /proc/cpuinfo
  nproc
  local wanted=name,compute_cap,driver_version,memory.total,clocks.max.sm
  if ! command -v nvidia-smi >/dev/null || ! nvidia-smi "--query-gpu=$wanted" --format=csv,noheader; then
    echo "no GPU: nvidia-smi finds none (--rehearse does what needs none)"
    ! $rehearse || return 77
    return 1
  fi
  # Before minutes go by: a program without the backend.
  if "$orrery" generate --device cuda --model "$quickstart/quickstart_model" --prompt 1 2>&1 | grep -F 'this build has no kernels for'; then
    echo "$orrery was built without CUDA: make the bundle of a build with the preset cuda-release"
    return 1
  fi
}
stage_selftest() {
  timeout 200 "$tree/tests/gpu/run_selftest.sh" "$out/build/selftest"
}
stage_ops() {
  local part
  if $rehearse; then
    [ -x "$ops_emulated" ] || { echo "skipped: there is no $ops_emulated"; return 77; }
    for part in $("$ops_emulated" stages); do
      printf '\n## %s\n' "$part"
      timeout 600 "$ops_emulated" "$part" || return 1
    done
    return 0
  fi
  while [ -n "$building" ] && kill -0 "$building" 2>/dev/null; do sleep 1; done
  timeout 1200 "$tree/tests/gpu/run_ops_check.sh" "$out/build/ops"
}
# from_sft NAME RANKS KEY=VALUE ...: RL from the checkpoint that SFT on the CPU left (step 80)
# in the run $base.
base=cpu
from_sft() {
  cp -r "$runs/$base" "$runs/$1" && rm -r "$runs/$1"/checkpoints/step_00008[123] && train "$@" && same "$1" "$wanted"
}
stage_hashes() {
  cpu_run && gradients_flow cpu && from_sft rl_on_device 1 "device=$device" || return 1
  if $rehearse; then return 0; fi  # it takes minutes there
  train all_on_device 1 "device=$device" && same all_on_device "$wanted"
}
stage_bf16() {
  local base=cpu_bf16 wanted options=(model.compute_dtype=bf16 trainer.rollout_save_freq=1) step
  local device=${device/debug/debug-dot16}
  train "$base" 1 device=cpu-dot16 "${options[@]}" && wanted=$(hash_of "$base") && gradients_flow "$base" &&
    from_sft bf16_on_device 1 "device=$device" "${options[@]}" || return 1
  for step in 1 2 3; do
    timeout 60 "$orrery" audit "$runs/bf16_on_device/rollouts/step_00008$step.h5" \
      --checkpoint "$runs/bf16_on_device/checkpoints/step_00008$((step - 1))" || return 1
  done
  if $rehearse; then return 0; fi
  from_sft bf16_two_ranks 2 "device=$device" "${options[@]}" rollout.max_num_seqs=5 actor.ppo_max_token_len_per_gpu=300
}
stage_ranks() {
  cpu_run || return 1
  local ranks placement
  for ranks in 2 4; do
    for placement in colocated split; do
      from_sft "ranks_${ranks}_$placement" "$ranks" "device=$device" "cluster.placement=$placement" || return 1
    done
  done
}
# RL's steps 82 and 83 are taken again on the device, then 83 on the CPU.
stage_resume() {
  cpu_run && cp -r "$runs/cpu" "$runs/resumed" || return 1
  rm -r "$runs/resumed/checkpoints/step_000082" "$runs/resumed/checkpoints/step_000083"
  train resumed 1 "device=$device" && same resumed "$wanted" || return 1
  rm -r "$runs/resumed/checkpoints/step_000083"
  train resumed 1 device=cpu && same resumed "$wanted"
}
stage_commands() {
  cpu_run || return 1
  local checkpoint=$runs/cpu/checkpoints/step_000083 on
  echo '[1, 5, 6, 3, 9, 2, 7, 4, 11, 8, 5, 10, 3, 6]' >"$runs/ids.json"
  for on in cpu "$device"; do
    timeout 60 "$orrery" logprobs --model "$checkpoint" --ids "$runs/ids.json" --json --device "$on" >"$runs/logprobs.$on" &&
      timeout 60 "$orrery" generate --model "$checkpoint" --prompt 3+4= --max-new-tokens 6 --device "$on" >"$runs/generate.$on" &&
      timeout 60 "$orrery" eval "$quickstart/quickstart.yaml" --checkpoint "$checkpoint" --json data.val_size=100 \
        rollout.val_n=2 rollout.val_temperature=1 "device=$on" --out "$runs/samples.$on" >"$runs/eval.$on" || return 1
  done
  compare logprobs "$runs/logprobs.cpu" "$runs/logprobs.$device" &&
    compare generate "$runs/generate.cpu" "$runs/generate.$device" &&
    compare eval "$runs/eval.cpu" "$runs/eval.$device" &&
    compare "eval's samples" "$runs/samples.cpu" "$runs/samples.$device"
}
stage_sanitizer() {
  local program=$out/build/ops/device/ops_check tool sanitizer
  sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
  if $rehearse || [ ! -x "$sanitizer" ]; then
    echo "skipped: no device, or no compute-sanitizer here"
    return 77
  fi
  [ -x "$program" ] || { echo "skipped: the stage ops has not built $program"; return 77; }
  local part seconds end=$((SECONDS + 60))
  for part in flat rows kv sampling vocabulary attention_forward attention_forward_bf16 attention_backward \
    attention_backward_bf16 products; do
    for tool in memcheck racecheck; do
      seconds=$((end - SECONDS))
      if [ "$seconds" -le 0 ]; then echo "not reached in 60 s: $tool of $part" && continue; fi
      timeout "$seconds" "$sanitizer" --tool "$tool" --error-exitcode 3 --print-limit 4 "$program" "$part"
      case $? in
        0) echo "clean: $tool of $part" ;;
        124) echo "stopped after 60 s without a finding: $tool of $part" ;;
        *) return 1 ;;
      esac
    done
  done
}

# --- the table ---

what_ran() {
  $rehearse || { echo; return; }
  case $1 in
    ops) echo "rehearsed: in the emulator" ;;
    hashes | bf16 | ranks | resume | commands)
      if [ "$device" = cuda ]; then echo "rehearsed: in the emulator"; else echo "rehearsed: device=$device"; fi
      ;;
    *) echo "rehearsed: what needs no device" ;;
  esac
}

{
  echo "# $(date -u +%Y-%m-%d), commit $commit, $orrery"
  echo
  echo "| stage | result | seconds | |"
  echo "|---|---|---:|---|"
} >"$table"
echo "results: $table"
# nvcc is at work while the self-test runs.
if ! $rehearse && [[ " ${stages[*]} " == *" ops "* ]]; then
  "$tree/tests/gpu/run_ops_check.sh" "$out/build/ops" --compile-only >"$out/ops_build.log" 2>&1 &
  building=$!
fi
failed=
for stage in "${stages[@]}"; do
  printf '\n== %s ==\n' "$stage"
  begin=$(date +%s)
  "stage_$stage" 2>&1 | tee "$out/$stage.log" | cut -c1-400
  case ${PIPESTATUS[0]} in
    0) result=passed ;;
    77) result=skipped ;;
    *) result=FAILED failed=$stage ;;
  esac
  echo "| $stage | $result | $(($(date +%s) - begin)) | $(what_ran "$stage") |" | tee -a "$table"
  [ -z "$failed" ] || break
done
echo
if [ -n "$failed" ]; then
  echo "gpu_suite: stage $failed failed; its log is $out/$failed.log, and the stages after it did not run"
  [ "$failed" != ops ] || echo "without a GPU: ops_check_emulated STAGE, the stage that failed (docs/cuda.md)"
  exit 1
fi
echo "gpu_suite: no stage failed"
