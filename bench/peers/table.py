"""The table of bench/run_all.sh, from its JSON lines."""
import collections
import json
import pathlib
import platform
import statistics
import subprocess

RATE, SECONDS = "rate", "seconds"
# (work, our case, field, peer, its case or cases, field, target). A ratio is ours over the peer's for rates,
# the peer's over ours for seconds. Targets of kind "most" hold our own figure, those of kind "amx" hold the
# ratio on a machine that has AMX.
LLAMA, PYTORCH, OURS = "llama.cpp", "transformers", "orrery"


def amx(ratio):
    return ("amx", ratio)


def step_bf16(work, case, field, target):
    """Beside TRL at its best: in bf16, in f32, or as shipped."""
    return (work, f"{case}_bf16", field, "TRL", (f"{case}_bf16", case), field, SECONDS, target)


BF16_ROWS = [
    *[(f"decode 135M, bf16, batch {batch}, tok/s", f"decode_bf16_{batch}", "value", LLAMA, f"decode_bf16_{batch}", "value",
       RATE, amx(target)) for batch, target in ((1, 1.2), (8, 2), (64, 3), (128, 3))],
    ("decode 135M, bf16, batch 64, with prompts, tok/s",
     "decode_bf16_64", "with_prompts", PYTORCH, "generate_bf16", "value", RATE, None),
    ("prefill 135M, bf16, 512 tokens, tok/s", "prefill_bf16", "value", LLAMA, "prefill_bf16", "value", RATE, amx(4)),
    ("forward + backward 135M, bf16, 8 x 256, tok/s",
     "train_bf16", "value", PYTORCH, "train_bf16", "value", RATE, amx(2.5)),
    ("the same, ours with one gradient shard",
     "train_bf16_one_shard", "value", PYTORCH, "train_bf16", "value", RATE, None),
    step_bf16("GRPO step 135M, bf16, 8 x 8 samples, 60 in + 128 out, s", "step_135m", "value", amx(9)),
    step_bf16("of which generating, bf16, s", "step_135m", "generating", None),
    step_bf16("GRPO step 8M, bf16, the same, s", "step_8m", "value", amx(6)),
    step_bf16("GRPO step 8M, bf16, 60 in + 16 out, s", "step_8m_short", "value", amx(9)),
    ("peak memory of the 135M step, bf16, GiB",
     "memory_bf16", "value", "TRL", ("memory_bf16", "memory"), "value", SECONDS, ("most", 3.6)),
    *[(f"bf16 (as peer: our f32): {work}", f"{case}_bf16{end}", "value", OURS, f"{case}{end}", "value", kind, target)
      for work, case, end, kind, target in (
          ("decode 135M, batch 1, tok/s", "decode", "_1", RATE, 1.5), ("batch 8, tok/s", "decode", "_8", RATE, 0.9),
          ("batch 64, tok/s", "decode", "_64", RATE, 0.9), ("batch 128, tok/s", "decode", "_128", RATE, 0.9),
          ("prefill 135M, tok/s", "prefill", "", RATE, 0.9), ("forward + backward 135M, tok/s", "train", "", RATE, 0.9),
          ("GRPO step 135M, s", "step_135m", "", SECONDS, 0.9), ("GRPO step 8M, s", "step_8m", "", SECONDS, 0.9))],
]
ROWS = [
    *[(f"decode 135M, batch {batch}, tok/s", f"decode_{batch}", "value", LLAMA, f"decode_{batch}", "value", RATE, target)
      for batch, target in ((1, 1.05), (8, 1.6), (32, 1.9), (64, 2.3), (128, 2.2))],
    ("decode 135M, batch 64, with prompts, tok/s", "decode_64", "with_prompts", PYTORCH, "generate", "value", RATE, None),
    ("groups 8 x 16, 512 in + 128 out, decoding, tok/s", "groups", "value", LLAMA, "groups", "value", RATE, 3.0),
    ("the same, with prompts, tok/s", "groups", "with_prompts", LLAMA, "groups", "with_prompts", RATE, None),
    ("prefill 135M, 512 tokens, tok/s", "prefill", "value", LLAMA, "prefill", "value", RATE, 1.5),
    ("forward + backward 135M, 8 x 256, tok/s, beside eager",
     "train", "value", PYTORCH, "train", "value", RATE, 1.35),
    ("the same beside torch.compile", "train", "value", PYTORCH, "train_compile", "value", RATE, 1.1),
    ("the same, ours with one gradient shard, beside torch.compile",
     "train_one_shard", "value", PYTORCH, "train_compile", "value", RATE, None),
    ("GRPO step 135M, 8 x 8 samples, 60 in + 128 out, s",
     "step_135m", "value", "TRL", "step_135m", "value", SECONDS, 2.3),
    ("of which generating, s", "step_135m", "generating", "TRL", "step_135m", "generating", SECONDS, None),
    ("GRPO step 8M, the same, s", "step_8m", "value", "TRL", "step_8m", "value", SECONDS, 5.0),
    ("GRPO step 8M, 60 in + 16 out, s", "step_8m_short", "value", "TRL", "step_8m_short", "value", SECONDS, 8.0),
    ("peak memory of the 135M step, GiB", "memory", "value", "TRL", "memory", "value", SECONDS, ("most", 4.5)),
    ("start to first token 15M, s", "start_15m", "value", LLAMA, "start_15m", "value", SECONDS, ("most", 0.10)),
    ("start to first token 135M, s", "start_135m", "value", LLAMA, "start_135m", "value", SECONDS, ("most", 0.25)),
    ("the same, TRL", "start_135m", "value", "TRL", "start_135m", "value", SECONDS, None),
    ("8M step, 2 ranks x 1 thread (as peer: 1 rank x 2 threads), s",
     "ranks", "value", OURS, "ranks_one", "value", SECONDS, 0.95),
    *BF16_ROWS,
]
SHIPPED_TARGETS = {"step_135m": 5.0}
NOTES = """\
Ours is the median of its runs, before and after the peer's; the peer's is the fastest of the settings tried, which the list
below names. "As shipped" is the peer with its defaults. The ratio says how many times faster (or smaller) ours is than the
peer at its best. Shapes: 135M = SmolLM2-135M's (30 layers, hidden 576, vocabulary 49,152), 8M and 15M = 6 layers, hidden 288,
vocabulary 6,400 and 32,000; random weights, float32 unless said, end of sequence ignored. In bf16 rows ours is
model.compute_dtype=bf16 (master weights, moments and gradients are f32); the peer is PyTorch with bf16 weights or with f32
weights under autocast, eager or compiled, TRL in bf16 or f32, llama.cpp with bf16 weights, whichever is fastest. Targets
"with AMX" hold on a machine that has it. llama.cpp decodes random tokens and
samples none, ours samples at temperature 1 and records log-probabilities; its defaults at batch 32 and more are measured over 16
tokens after 152, the middle of the sequence, at the end of the run. The step on 1 and 2 ranks is a training run of its own
(short arithmetic prompts, 64 tokens), not the 8M step above it. Our forward + backward includes packing the
weights for the products; the step includes everything from prompts to updated weights. GiB are 2^30 bytes."""


def git_commit():
    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True, text=True,
                              check=False).stdout.strip()
    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + ("-dirty"
                     if git("status", "--porcelain", "-uno", "--", ":!bench/RESULTS.md") else "")


def cpu_name():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def has_amx():
    try:
        return "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False


def memory_gib():
    try:
        return round(
            int(pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) / (1 << 20))
    except (OSError, ValueError, IndexError):
        return "?"


class Figures:
    """The latest run's rows of every (peer, case, role)."""

    def __init__(self, raw):
        self.rows = collections.defaultdict(list)
        self.all = []
        for line in pathlib.Path(raw).read_text(encoding="utf-8").splitlines():
            self.all.append(json.loads(line))
        # Figures of another number of threads, or of --quick beside whole ones, are not compared.
        kind = [(row["threads"], row["quick"]) for row in self.all]
        self.all = [row for row, k in zip(self.all, kind) if k == kind[-1]]
        latest = {(row["peer"], row["case"]): row["run"] for row in self.all}
        for row in self.all:
            if row["run"] == latest[row["peer"], row["case"]]:
                self.rows[row["peer"], row["case"], row["role"]].append(row)

    def values(self, peer, case, role, field):
        return [(row[field], row) for row in self.rows.get((peer, case, role), []) if field in row]

    def ours(self, case, field):
        values = [value for value, _ in self.values("orrery", case, "ours", field)]
        return statistics.median(values) if values else None

    def theirs(self, peer, cases, field, kind, role):
        """(figure, row) of the peer's fastest setting."""
        if peer == OURS:
            value = self.ours(cases, field)
            return (value, None) if value is not None and role == "best" else (None, None)
        roles = (role, "shipped") if role == "best" else (role,)  # a default may be the best there is
        values = [value for case in ((cases,) if isinstance(cases, str) else cases) for role in roles
                  for value in self.values(peer, case, role, field)]
        if not values:
            return None, None
        return (max if kind == RATE else min)(values, key=lambda value: value[0])


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table_row(figures, work, case, field, peer, their_case, their_field, kind, target):
    ours = figures.ours(case, field)
    best, row = figures.theirs(peer, their_case, their_field, kind, "best")
    shipped, _ = figures.theirs(peer, their_case, their_field, kind, "shipped")

    def ratio_to(other):
        if ours is None or other is None:
            return None
        return ours / other if kind == RATE else other / ours

    ratio = ratio_to(best)
    met, wanted = "-", "-"
    if isinstance(target, tuple) and target[0] == "amx":
        wanted = f">= {target[1]:g}x with AMX"
        met = "-" if ratio is None or not has_amx() else "yes" if ratio >= target[1] else "no"
    elif isinstance(target, tuple):
        wanted = f"<= {target[1]:g}"
        met = "-" if ours is None else "yes" if ours <= target[1] else "no"
    elif target is not None:
        wanted = f">= {target:g}x"
        met = "-" if ratio is None else "yes" if ratio >= target else "no"
    ours_row = figures.rows.get(("orrery", case, "ours"), [None])[0]
    if row and ours_row and row["run"] != ours_row["run"]:
        work += " (*)"
    cells = [work, number(ours), number(best), number(shipped), "-" if ratio is None else f"{ratio:.2f}x", wanted, met]
    lines = ["| " + " | ".join(cells) + " |"]
    if case in SHIPPED_TARGETS and field == "value":
        ratio, wanted = ratio_to(shipped), SHIPPED_TARGETS[case]
        met = "-" if ratio is None else "yes" if ratio >= wanted else "no"
        cells = ["the same beside TRL as shipped, s", number(ours), "-", number(shipped),
                 "-" if ratio is None else f"{ratio:.2f}x", f">= {wanted:g}x", met]
        lines.append("| " + " | ".join(cells) + " |")
    setting = f"- {work}: {peer}, {row['setting']}" if row else None
    return lines, setting


def render(raw):
    figures = Figures(raw)
    if not figures.all:
        raise OSError(f"{raw} is empty")
    last = figures.all[-1]
    commits = sorted({row["commit"] for rows in figures.rows.values() for row in rows})
    runs = sorted({row["run"] for rows in figures.rows.values() for row in rows})
    peaks = [f"{row['value']:.0f} {row['setting']}" for run in runs
             for row in figures.all if row["peer"] == "machine" and row["run"] == run]
    lines = ["# Orrery beside its peers", "",
             "Written by `bench/run_all.sh`; bench/README.md says how. Compare ratios: the machine differs from yours.", ""]
    if any(row["quick"] for rows in figures.rows.values() for row in rows):
        lines += ["**A quick run: it shows that the scripts work; its figures mean nothing.**", ""]
    versions = sorted({f"{row['peer']} ({row['version']})" for rows in figures.rows.values() for row in rows
                       if row.get("version")})
    threads, system = last["threads"], f"{platform.system()} {platform.release()}"
    lines += [f"- Machine: {cpu_name()}{' with AMX' if has_amx() else ''}, {threads} threads used, {memory_gib()} GiB, {system}",
              f"- Runs: {', '.join(runs)}; commit {', '.join(commits)}",
              f"- FMA peak, {threads} threads, before and after each run, GFLOP/s: {', '.join(peaks) or 'not measured'}",
              f"- Peers: {'; '.join(versions) or 'none'}",
              "", "| work | ours | peer (best) | peer as shipped | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    settings = []
    for row in ROWS:
        added, setting = table_row(figures, *row)
        lines += added
        if setting:
            settings.append(setting)
    if any("(*)" in line for line in lines):
        lines += ["", "(*) The two sides were measured in different runs."]
    lines += ["", NOTES, "", "Settings of the peer at its best:", "", *settings, ""]
    others = [row for (_, _, role), rows in figures.rows.items() if role == "other" for row in rows]
    for row in others:
        more = f" ({row['with_prompts']:.4g} with prompts)" if "with_prompts" in row else ""
        lines.append(f"- Also measured, {row['case']}: {row['peer']}, {row['setting']}: {row['value']:.4g} {row['unit']}{more}")
    return "\n".join(lines).rstrip() + "\n"
