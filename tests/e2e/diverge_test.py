"""A policy that diverges ends its run for good: with an exit code of its own, no restart, and the
checkpoints from before."""
import hashlib
import json
import math
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest

from harness import QUICKSTART, Case, ScriptedModel, command, environment, metrics

DIVERGED = 3
# 3 steps of SFT, then RL.
TINY = ["sft.total_training_steps=3", "sft.train_batch_size=8", "trainer.total_training_steps=12", "data.train_batch_size=4",
        "rollout.n=2", "data.val_size=4", "trainer.save_freq=1", "trainer.max_ckpt_to_keep=1", "trainer.rollout_save_freq=0",
        "cluster.threads=1", "trainer.tensorboard=false", "rollout.kv_cache_gb=0.01", "sft.optim.lr_warmup_steps=0",
        "actor.optim.lr_warmup_steps=0"]


class Diverged(Case):
    def diverges(self, run_dir, *options, launch=True, ranks=1, says="the policy has diverged"):
        """Runs it; returns what it said."""
        words = ["launch", "-n", str(ranks), "--backoff", "0.01"] if launch else ["train"]
        result = self.fails(DIVERGED, *words, QUICKSTART, f"run_dir={run_dir}", *TINY, *options,
                            says=[says])
        if launch:
            self.assertNotIn("restarting", result.stderr)
            self.assertIn("no restart: the policy has diverged, which a restart does not change",
                          result.stderr)
            status = json.loads((run_dir / "status.json").read_text())
            self.assertEqual((status["state"], status["exit_code"]), ("failed", DIVERGED))
        return result

    def wait_for_line(self, run_dir, process, text):
        """Until metrics.jsonl has it."""
        self.addCleanup(process.kill)
        path = run_dir / "metrics.jsonl"
        self.wait_for(path, process)
        deadline = time.time() + 60
        while text not in path.read_text():
            self.assertIsNone(process.poll(), "it has ended")
            self.assertLess(time.time(), deadline, f"{text} does not come")
            time.sleep(0.01)

    def check_sound(self, run_dir, step):
        """The only checkpoint is of `step`, and its weights are those of a model."""
        self.assertEqual([path.name for path in (run_dir / "checkpoints").iterdir()],
                         [f"step_{step:06}"])
        shown = json.loads(self.ok("ckpt", "show", run_dir, "--json").stdout)
        for tensor in shown["tensors"]:
            self.assertEqual(tensor["nan"], 0)
            self.assertLess(max(abs(tensor["min"]), abs(tensor["max"])), 100)


class Overflow(Diverged):
    def test_the_last_good_checkpoint_outlives_rates_that_are_too_high(self):
        for rate in ("1e6", "1e10", "1e18", "1e20", "1e30", "1e38"):
            run_dir = self.folder / f"rl{rate}"
            self.diverges(run_dir, f"actor.optim.lr={rate}", launch=rate == "1e30")
            self.check_sound(run_dir, 3)
        # With another rate the same command goes on.
        result = self.ok("train", QUICKSTART, f"run_dir={run_dir}", *TINY, "actor.optim.lr=1e-4")
        self.assertIn("step_000003 at step 3 (sft 3)", result.stderr)

    def test_sft_diverges_as_well(self):
        for rate in ("1e6", "1e18", "1e30"):
            run_dir = self.folder / f"sft{rate}"
            result = self.diverges(run_dir, f"sft.optim.lr={rate}", launch=rate == "1e30")
            self.assertRegex(result.stderr,
                             r"step 1 \(sft 1\): the policy has diverged: .*lower sft\.optim\.lr")
            self.assertEqual(list((run_dir / "checkpoints").glob("*")), [])
        # In the last step of a run that saves nothing.
        self.diverges(self.folder / "last", "sft.optim.lr=1e30", "sft.total_training_steps=1",
                      "trainer.total_training_steps=0", "trainer.save_freq=-1", launch=False)

    def test_a_run_that_saves_nothing_fails_too(self):
        for options in (["trainer.save_freq=-1"], ["trainer.save_freq=0"],
                        ["trainer.save_freq=7", "trainer.test_freq=0"]):
            run_dir = self.folder / options[0]
            self.diverges(run_dir, "actor.optim.lr=1e30", "trainer.total_training_steps=2",
                          *options, launch=False)

    def test_on_several_ranks(self):
        for placement in ("colocated", "split"):
            run_dir = self.folder / placement
            result = self.diverges(run_dir, "actor.optim.lr=1e30", f"cluster.placement={placement}",
                                   ranks=2)
            self.check_sound(run_dir, 3)
            self.assertEqual(len(re.findall(r"^orrery: (rank \d: )?(?:step|\w+ step) .*diverged", result.stderr, re.M)), 1, result.stderr)
            self.diverges(self.folder / f"{placement}-sft", "sft.optim.lr=1e30",
                          f"cluster.placement={placement}", ranks=2)

    def test_the_metrics_tell_of_the_step_that_diverged(self):
        run_dir = self.folder / "run"
        self.diverges(run_dir, "actor.optim.lr=1e30", launch=False)
        self.assertEqual([(row["step"], row["stage"]) for row in metrics(run_dir)][-1], (4, "grpo"))

    def test_a_stop_does_not_save_what_has_diverged(self):
        run_dir = self.folder / "run"
        process = subprocess.Popen(command("train", QUICKSTART, f"run_dir={run_dir}", *TINY, "trainer.save_freq=0", "trainer.test_freq=0",
                                           "actor.optim.lr=1e20", "trainer.total_training_steps=1000"),
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                   env=dict(environment(), ORRERY_FAULT="engine.step:slow"), stdin=subprocess.DEVNULL)
        self.wait_for_line(run_dir, process, '"stage":"grpo"')
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
        self.assertEqual(process.returncode, DIVERGED, text)
        self.check_sound(run_dir, 3)


class Skipped(Diverged):
    """Gradients that are not finite: nothing is learned, and the weights stay what they were."""
    OVERFLOWS = "actor.entropy_coeff=3e38"  # of float32's largest number: every gradient is infinite

    def start(self, run_dir, *options):
        return subprocess.Popen(command("train", QUICKSTART, f"run_dir={run_dir}", *TINY, *options), stderr=subprocess.PIPE, text=True,
                                stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=dict(environment(), ORRERY_FAULT="engine.step:slow"))

    def test_five_in_a_row_end_the_run_and_none_is_saved(self):
        for frequency in (1, 2, 4):
            run_dir = self.folder / str(frequency)
            result = self.diverges(run_dir, self.OVERFLOWS, f"trainer.save_freq={frequency}", "sft.total_training_steps=4", launch=frequency == 1,
                                   says="step 9 (grpo 5): the policy has diverged: 5 step(s) in a row had a gradient that is not finite")
            self.assertIn(
                "the save due at step 8 (grpo 4) is left out: 4 step(s) in a row taught nothing",
                result.stderr)
            self.check_sound(run_dir, 4)
            self.assertEqual(metrics(run_dir)[-1]["actor/skipped_updates"], 1)

    def test_kills_do_not_make_it_go_on(self):
        run_dir = self.folder / "run"
        for _ in range(3):
            result = subprocess.run(
                command("train", QUICKSTART, f"run_dir={run_dir}", *TINY,
                        self.OVERFLOWS), capture_output=True, text=True, timeout=60,
                env=dict(environment(), ORRERY_FAULT="learner.update:crash@4"))
            self.assertEqual(result.returncode, -9, result.stderr)
            self.assertLessEqual(self.checkpoint_hash(run_dir)[0], "step_000003")
        self.diverges(run_dir, self.OVERFLOWS, launch=False)

    def test_a_stop_keeps_the_count(self):
        run_dir = self.folder / "run"
        process = self.start(run_dir, self.OVERFLOWS)
        self.wait_for_line(run_dir, process, '{"step":5,')
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, text)
        state = json.loads(self.ok("ckpt", "show", run_dir, "--json").stdout)["state"]
        self.assertIn(state["rl_step"], (2, 3, 4))
        self.assertEqual(state["skipped_steps"], state["rl_step"])
        self.diverges(run_dir, self.OVERFLOWS, launch=False, says="step 8 (grpo 5)")
        # With other settings it goes on from there, and the count ends with the first step that
        # learns.
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *TINY)
        self.assertNotIn("skipped_steps",
                         json.loads(self.ok("ckpt", "show", run_dir, "--json").stdout)["state"])

    def test_a_stage_of_which_no_step_learned_fails(self):
        self.diverges(self.folder / "rl", self.OVERFLOWS, "trainer.total_training_steps=2",
                      launch=False, says="2 step(s) in a row")


def rewrite_weights(checkpoint, change):
    """Of a checkpoint of one rank: change(bytes of the weights and of both moments) as bytearrays,
    as an older program saved them."""
    path = checkpoint / "rank_0000_of_0001.h5"
    data = bytearray(path.read_bytes())
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    # The numbers are the end of the file, kind after kind.
    size = 4 * sum(math.prod(tensor["shape"]) for tensor in manifest["modules"][0]["tensors"])
    parts = [data[len(data) - (3 - i) * size:len(data) - (2 - i) * size] for i in range(3)]
    change(*parts)
    data[len(data) - 3 * size:] = b"".join(parts)
    path.write_bytes(data)
    manifest["files"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    manifest["state"].pop("start_largest", None)
    text = json.dumps(manifest)
    (checkpoint / "manifest.json").write_text(text)
    (checkpoint /
     "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")


class Again(Diverged):
    """What has ended a run for good is not forgiven by another process."""
    # Some samples are right, so that there is something to learn: 6 steps of SFT.
    LEARNS = ["sft.total_training_steps=6", "sft.train_batch_size=32", "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=1", "rollout.n=8",
              "data.train_batch_size=8", "data.arithmetic.digits=1"]

    def test_the_same_command_ends_as_before(self):
        for rate in ("5", "300"):
            for keep in (1, 3):
                run_dir = self.folder / f"rl{rate}-{keep}"
                for _ in range(3):
                    self.diverges(run_dir, *self.LEARNS, f"actor.optim.lr={rate}",
                                  f"trainer.max_ckpt_to_keep={keep}", launch=False,
                                  says="a weight has grown to")
                    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
                    self.assertEqual(names, [f"step_{step:06}" for step in range(7 - keep, 7)],
                                     "nothing of it is saved")
        for _ in range(2):
            self.diverges(self.folder / "split", *self.LEARNS, "actor.optim.lr=300",
                          "cluster.placement=split", ranks=2)
            self.check_sound(self.folder / "split", 6)

    def test_sft(self):
        for rate in ("5", "300"):
            for _ in range(3):
                self.diverges(self.folder / rate, f"sft.optim.lr={rate}", "sft.optim.clip_grad=0",
                              "sft.total_training_steps=20", launch=False)

    def test_after_many_sound_steps(self):
        # How much a stage may grow counts its own steps.
        run_dir = self.folder / "run"
        self.diverges(run_dir, *self.LEARNS, "actor.optim.lr=5", "sft.total_training_steps=40",
                      launch=False, says="step 41 (grpo 1)")
        self.check_sound(run_dir, 40)

    def test_after_a_kill(self):
        # The checkpoint is of step 6; the killed run went on to others, which were not saved.
        run_dir = self.folder / "run"
        options = [*self.LEARNS, "actor.optim.lr=300", "trainer.save_freq=0", "trainer.test_freq=0"]
        result = subprocess.run(command("train", QUICKSTART, f"run_dir={run_dir}", *TINY,
                                        *options), capture_output=True, text=True, timeout=60,
                                env=dict(environment(), ORRERY_FAULT="learner.update:crash@9"))
        self.assertEqual(result.returncode, -9, result.stderr)
        self.diverges(run_dir, *options)
        self.check_sound(run_dir, 6)

    def test_after_a_stop(self):
        run_dir = self.folder / "run"
        options = [*self.LEARNS, "actor.optim.lr=300", "trainer.save_freq=0", "trainer.test_freq=0"]
        process = subprocess.Popen(
            command("train", QUICKSTART, f"run_dir={run_dir}", *TINY, *options,
                    "trainer.total_training_steps=1000"), stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            env=dict(environment(), ORRERY_FAULT="engine.step:slow"))
        self.wait_for_line(run_dir, process, '{"step":8,')
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
        self.assertEqual(process.returncode, DIVERGED, text)
        self.check_sound(run_dir, 6)
        self.diverges(run_dir, *options)
        self.check_sound(run_dir, 6)

    def test_a_dead_policy_that_an_older_program_saved(self):
        first = self.folder / "first"
        self.ok("train", QUICKSTART, f"run_dir={first}", *TINY, "trainer.total_training_steps=1",
                "trainer.max_ckpt_to_keep=2")

        def grow(weights, *_):
            weights[4000:4004] = struct.pack("<f", -300)

        def overflow(weights, m, v):
            v[-4:] = struct.pack("<f", float("inf"))

        def move(weights, *_):  # as training does
            weights[4000:4004] = struct.pack("<f", 1.5)

        for change, says in ((grow, "a weight has grown to 300"),
                             (overflow, "the optimizer's moments are not finite"), (move, "")):
            run_dir = self.folder / change.__name__
            shutil.copytree(first, run_dir)
            rewrite_weights(run_dir / "checkpoints/step_000004", change)
            words = ["train", QUICKSTART, *TINY, "trainer.total_training_steps=3"]
            other = [f"run_dir={run_dir}-other", f"trainer.resume={run_dir}"]
            if not says:
                self.ok(*words, *other)
                self.ok(*words, f"run_dir={run_dir}", ranks=2)
                continue
            for more in ([f"run_dir={run_dir}"], other):
                for ranks in (0, 2):
                    self.fails(2, *words, *more, ranks=ranks, says=["step_000004: the policy had diverged when it was saved: " + says, "remove it"])
            self.fails(2, "launch", "-n", "1", *words[1:], f"run_dir={run_dir}",
                       says=[says, "no restart"])
            shutil.rmtree(run_dir / "checkpoints/step_000004")
            self.ok(*words, f"run_dir={run_dir}")

    def test_a_gradient_of_zero_with_something_to_learn(self):
        model = self.folder / "model"
        source = self.folder / "source"
        self.ok("train", QUICKSTART, f"run_dir={source}", *TINY, "trainer.total_training_steps=0")
        self.ok("ckpt", "export", source, "--format", "hf", model)
        path = model / "model.safetensors"
        data = bytearray(path.read_bytes())
        (header,) = struct.unpack_from("<Q", data)
        data[8 + header:] = bytes(len(data) - 8 - header)
        path.write_bytes(data)
        # All is 0: every token is as likely as any other, and no weight's change would change that.
        run_dir = self.folder / "run"
        options = [f"model.path={model}", "model.from_scratch=false", "sft.total_training_steps=8"]
        for _ in range(2):
            result = self.diverges(
                run_dir, *options, launch=False,
                says="the gradient is exactly 0, although there was something to learn")
            self.assertIn("5 step(s) in a row taught nothing", result.stderr)
            self.assertEqual(list((run_dir / "checkpoints").glob("*")), [])

    def test_a_sound_policy_is_let_go_on(self):
        # Nothing to learn, or a rate of 0: neither is divergence, however often.
        for options in (["actor.optim.lr=0"], ["sft.optim.lr=0"], ["sft.total_training_steps=0"],
                        ["sft.optim.lr=1e-2", "actor.optim.lr=1e-2"
                        ], ["sft.optim.lr=1e-1", "sft.total_training_steps=20"]):
            run_dir = self.folder / "".join(options)
            for _ in range(2):
                self.ok("train", QUICKSTART, f"run_dir={run_dir}", *TINY, *options)


class Inputs(Case):
    """What no restart mends is a config error, for launch too."""

    def final(self, *options, says):
        result = self.fails(2, "launch", "-n", "1", "--backoff", "0.01", QUICKSTART,
                            f"run_dir={self.folder / 'run'}", *TINY, *options,
                            says=[says, "no restart"])
        self.assertNotIn("restarting", result.stderr)

    def test_models(self):
        def model(name, **changes):
            return ScriptedModel(self.folder / name).write(eos_token="<eos>", **changes)

        plain = ["model.from_scratch=false"]
        for name, config, says in (("type", {"model_type": "gpt2"}, "gpt2"), ("rope", {
                "rope_scaling": {"rope_type": "longrope"}
        }, "longrope"), ("quantised", {"quantization_config": {"bits": 4}},
                         "quantiz"), ("activation", {"hidden_act": "gelu"}, "gelu"),
                                   ("small", {"vocab_size": 10}, "vocab_size")):
            self.final(f"model.path={model(name, config=config)}", *plain, says=says)
        (model("no-tokenizer") / "tokenizer.json").unlink()
        self.final(f"model.path={self.folder / 'no-tokenizer'}", *plain, says="tokenizer.json")
        (model("no-weights") / "model.safetensors").unlink()
        self.final(f"model.path={self.folder / 'no-weights'}", *plain, says="model.safetensors")
        (model("no-config") / "config.json").unlink()
        self.final(f"model.path={self.folder / 'no-config'}", *plain, says="config.json")
        self.final(f"model.path={model('no-template')}", *plain, "data.apply_chat_template=true",
                   says="no chat template")
        torn = model("torn") / "model.safetensors"
        torn.write_bytes(torn.read_bytes()[:-40])
        self.final(f"model.path={self.folder / 'torn'}", *plain, says="model.safetensors")
        typed = model("dtype") / "model.safetensors"
        typed.write_bytes(typed.read_bytes().replace(b'"F32"', b'"I32"'))
        self.final(f"model.path={self.folder / 'dtype'}", *plain, says="I32")

    def test_data(self):
        rows = self.folder / "rows.jsonl"
        rows.write_text('{"question": "x", "answer": "no mark"}\n')
        self.final("data.env=gsm8k", f"data.train_files=[{rows}]", f"data.val_files=[{rows}]",
                   "sft.total_training_steps=0", says="rows.jsonl:1")

    def saved(self):
        run_dir = self.folder / "run"
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *TINY, "trainer.total_training_steps=0")
        return run_dir

    def test_a_checkpoint_that_an_older_program_saved_of_a_dead_policy(self):
        checkpoint = self.saved() / "checkpoints/step_000003"
        def spoil(weights, *_):
            weights[4000:4016] = b"\xff" * 16

        rewrite_weights(checkpoint, spoil)
        self.ok("ckpt", "verify", checkpoint)
        self.final(says="step_000003: the policy had diverged when it was saved: its weights are not finite; remove it")

    def test_another_models_checkpoints(self):
        self.saved()
        other = ScriptedModel(self.folder / "other").write(eos_token="<eos>")
        self.final(f"model.path={other}", "model.from_scratch=false", says="is of another model")


if __name__ == "__main__":
    unittest.main()
