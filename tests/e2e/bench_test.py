"""orrery bench on a model of thousands of parameters: what it prints, and that ranks share its
step. No test of a speed."""
import json
import unittest

from harness import SOURCE, Case

MODEL = ["--model", SOURCE / "experiments/quickstart_model", "--threads", "1", "--repeats", "1"]
STEP = ["bench", "step", *MODEL, "--prompts", "4", "--samples", "2", "--prompt-len", "9", "--gen-len", "8"]


class Bench(Case):
    def check(self, stdout, phases):
        report = json.loads(stdout)  # one object, whatever the number of ranks
        breakdown = {phase["name"]: phase for phase in report["breakdown"]}
        self.assertLessEqual(set(phases), set(breakdown))
        self.assertAlmostEqual(sum(phase["share"] for phase in breakdown.values()), 1)
        for phase in breakdown.values():
            for op in phase["ops"]:
                self.assertGreaterEqual(op["seconds"], 0, op)
            if phase["ops"]:
                self.assertAlmostEqual(sum(op["share"] for op in phase["ops"]), phase["share"])
        return report

    def test_breakdown(self):
        learner = ["update", "forward", "head and loss", "backward", "optimizer", "pack"]
        self.check(self.ok(*STEP, "--json").stdout, ["prefill", "decode", *learner])
        self.check(self.ok(*STEP, "--json", "--device", "cpu-dot16", "--dtype", "bf16").stdout, ["prefill", "decode", *learner])
        self.check(self.ok("bench", "train", *MODEL, "--batch", "2", "--seq-len", "16", "--json").stdout, learner)
        rollout = self.ok("bench", "rollout", *MODEL, "--batch", "2", "--prompt-len", "9",
                          "--gen-len", "20").stdout
        for text in ("decode_tokens_per_s", "phase, op", "attention forward", "lm head"):
            self.assertIn(text, rollout)

    def test_ranks(self):
        report = self.check(
            self.ok(*STEP, "--json", ranks=2).stdout, ["prefill", "exchange", "backward", "reduce"])
        self.assertIn("2 ranks", report["bench"])
        self.assertEqual(report["logprob_diff_max"], 0)
        self.assertGreaterEqual(report["reduce_seconds"], 0)
        self.fails(2, *STEP, "--gradient-shards", "1", ranks=2,
                   says=["--gradient-shards 1 cannot", "2 ranks"])
        result = self.fails(2, "bench", "step", "--model", "/no/such", ranks=2, says=["/no/such"])
        self.assertEqual(result.stderr.count("/no/such"), 1, "printed once, not by every rank")
        self.fails(2, "bench", "rollout", *MODEL, ranks=2, says=["without mpirun"])
        self.fails(2, *STEP, "--threads", "100000", says=["--threads", "at most 4096"])


if __name__ == "__main__":
    unittest.main()
