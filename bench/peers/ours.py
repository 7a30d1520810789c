"""Our side of bench/run_all.sh: each function runs one case and gives its figures, as rows like the
peers'."""
import json
import pathlib
import shutil
import statistics
import subprocess
import time

PROMPT = "the quick brown fox jumps over the lazy dog"

RANKS_CONFIG = """\
experiment_name: ranks
run_dir: {run}
seed: 1
model: {{path: {model}}}
data:
  env: arithmetic
  train_batch_size: 8
  max_prompt_length: 16
  max_response_length: {tokens}
  arithmetic: {{digits: 2, operation: add}}
rollout: {{n: 8, max_num_seqs: 64}}
trainer: {{total_training_steps: {steps}, save_freq: -1, test_freq: 0, rollout_save_freq: 0, tensorboard: false}}
"""


class Failure(Exception):
    """A command that did not give its figures: one line."""


def call(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                            errors="replace", check=False)
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["no output"]
        raise Failure(
            f"{' '.join(map(str, command))} ended with {result.returncode}: {lines[-1][:300]}")
    return result.stdout


class Ours:
    def __init__(self, orrery, models, scratch, threads, quick):
        self.orrery, self.models, self.scratch = orrery, models, scratch
        self.threads, self.quick = threads, quick

    def row(self, case, setting, value, unit, **more):
        return {"peer": "orrery", "case": case, "setting": setting, "role": "ours", "value": round(value, 4),
                "unit": unit, **more}

    def bench(self, kind, shape, *arguments, repeats=1):
        output = call([self.orrery, "bench", kind, "--model", self.models / shape, "--threads", self.threads, "--repeats",
                       1 if self.quick else repeats, "--json", *arguments])
        return json.loads(output)

    def decode(self, case, batch, dtype="f32"):
        row = self.bench("rollout", "135m", "--dtype", dtype, "--batch", batch, "--prompt-len", 64,
                         "--gen-len", 16 if self.quick else 192, repeats=3 if batch == 1 else 1)
        # transformers' generate() counts the prompts' time too.
        return [self.row(case, dtype, row["decode_tokens_per_s"], "tok/s", with_prompts=row["tokens_per_s"])]

    def groups(self, case):
        row = self.bench("rollout", "135m", "--batch", 128, "--samples", 16, "--prompt-len", 512,
                         "--gen-len", 8 if self.quick else 128)
        return [self.row(case, "8 prompts x 16 samples", row["decode_tokens_per_s"], "tok/s",
                         with_prompts=row["tokens_per_s"])]

    def prefill(self, case, dtype="f32"):
        row = self.bench("rollout", "135m", "--dtype", dtype, "--batch", 1, "--prompt-len", 512, "--gen-len", 2,
                         repeats=7)
        return [self.row(case, dtype, row["prefill_tokens_per_s"], "tok/s")]

    def train(self, case, dtype="f32"):
        batch = 1 if self.quick else 8
        rows = []
        for shards in (8, 1):
            row = self.bench("train", "135m", "--dtype", dtype, "--batch", batch, "--seq-len",
                             32 if self.quick else 256, "--gradient-shards", shards, repeats=3)
            # Packing the weights happens once an update and belongs to its cost.
            seconds = row["forward_backward_seconds"] + row["pack_seconds"]
            tokens = row["tokens_per_s"] * row["forward_backward_seconds"]
            rows.append(
                self.row(case if shards == 8 else f"{case}_one_shard",
                         f"{dtype}, {shards} gradient shard(s)",
                         tokens / seconds, "tok/s", mfu=row["mfu"]))
        return rows

    def step(self, case, shape, tokens, repeats, dtype="f32"):
        row = self.bench("step", shape, "--dtype", dtype, "--prompts", 8, "--samples", 8, "--prompt-len", 60,
                         "--gen-len", 8 if self.quick else tokens, repeats=repeats)
        setting = f"{dtype}, 8 gradient shards"
        rows = [self.row(case, setting, row["step_seconds"], "s", generating=row["gen_seconds"],
                         mfu_learner=row["mfu_learner"])]
        if shape == "135m":
            memory = "memory" if dtype == "f32" else f"memory_{dtype}"
            rows.append(self.row(memory, setting, row["peak_memory_gib"], "GiB"))
        return rows

    def start(self, case):
        model = self.models / case.removeprefix("start_")
        seconds = []
        for _ in range(3 if self.quick else 15):
            begin = time.perf_counter()
            call([self.orrery, "generate", "--model", model, "--threads", self.threads, "--temperature", 0, "--ignore-eos",
                  "--max-new-tokens", 1, "--prompt", PROMPT])
            seconds.append(time.perf_counter() - begin)
        return [self.row(case, "orrery generate, whole process", statistics.median(seconds[1:]), "s")]

    def ranks(self, case):
        """Seconds a step with all threads in one rank, and with one rank a thread; the same work,
        the same bits."""
        steps, tokens = (3, 4) if self.quick else (8, 64)
        rows = []
        for ranks, threads in ((1, self.threads), (self.threads, 1)):
            run = self.scratch / f"ranks_{ranks}"
            shutil.rmtree(run, ignore_errors=True)
            config = self.scratch / "ranks.yaml"
            config.write_text(
                RANKS_CONFIG.format(run=run, model=self.models / "8m", tokens=tokens, steps=steps))
            launcher = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", ranks
                       ] if ranks > 1 else []
            call([*launcher, self.orrery, "train", config, f"cluster.threads={threads}"])
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            seconds = [line["timing_s/step"] for line in lines if line.get("stage") == "grpo"]
            if len(seconds) != steps:
                raise Failure(f"{run}/metrics.jsonl has {len(seconds)} of {steps} steps")
            rows.append(
                self.row("ranks" if ranks > 1 else "ranks_one",
                         f"{ranks} rank(s) x {threads} thread(s)",
                         statistics.median(seconds[2:] or seconds), "s"))
        return rows


def fma_peak(bench_matmul, threads):
    """GFLOP/s of multiply-adds in registers: what the clock and the neighbours leave at this
    moment."""
    if not pathlib.Path(bench_matmul).exists():
        raise Failure(
            f"{bench_matmul} is not built; cmake --build --preset release --target bench_matmul")
    output = call([bench_matmul, "--benchmark_filter=fma_peak", "--benchmark_format=json"])
    rows = json.loads(output)["benchmarks"]
    peaks = [row["GFLOP/s"] for row in rows if f"threads:{threads}/" in row["name"]]
    if not peaks:
        raise Failure(f"bench_matmul has no fma_peak for {threads} threads, only for 1, 2 and all of the machine's")
    return max(peaks)
