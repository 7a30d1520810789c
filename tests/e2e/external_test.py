#!/usr/bin/env python3
"""Rewards from a program of the user's: what it is told, what it may answer, and what becomes of
samples when it fails."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import textwrap
import time
import unittest

from harness import BIN, SOURCE, Case, ScriptedModel, command, environment, metrics, run

# What every program here begins with; `request` is the line that came.
HEAD = """
import json, os, sys, time
def answer(**more):
    print(json.dumps({"id": request["id"], **more}), flush=True)
served = 0
"""
LOOP = """
for line in sys.stdin:
    request = json.loads(line)
    served += 1
"""
NORMAL = "answer(reward=float(len(request['response'])), acc=True)"


class External(Case):
    def setUp(self):
        super().setUp()
        # From <q> it says any of four letters, then ends its turn; after an observation "?" it says
        # z.
        self.model = ScriptedModel(self.folder / "model", special=["<eos>"],
                                   words=["<q>", "<poison>"])
        self.model.say("<q>", "a", "b", "c", "d")
        self.model.say("<poison>", "a", "b", "c", "d")
        self.model.say("?", "z")
        self.model.default = "<eos>"
        self.model.write(eos_token="<eos>")
        self.rows([{"prompt": "<q>", "answer": "a"}] * 4)

    def rows(self, rows, name="rows.jsonl"):
        (self.folder / name).write_text("".join(
            (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))

    def program(self, body, head=""):
        """A program whose loop does `body` for each request."""
        path = self.folder / "program.py"
        path.write_text(HEAD + textwrap.dedent(head) + LOOP +
                        textwrap.indent(textwrap.dedent(body), "    ") + "\n")
        return path

    def config(self, batch=4, n=4, steps=1, length=8, more="", external=""):
        path = self.folder / "config.yaml"
        path.write_text(f"""
model: {{path: model}}
data:
  env: external
  train_files: [rows.jsonl]
  train_batch_size: {batch}
  max_prompt_length: 16
  max_response_length: {length}
  shuffle: false
  external: {{command: "python3 {self.folder}/program.py", workers: 2, timeout_s: 5, start_timeout_s: 20{external}}}
rollout: {{n: {n}}}
actor: {{optim: {{lr: 1.0e-3}}}}
trainer: {{total_training_steps: {steps}, save_freq: -1, tensorboard: false}}
cluster: {{threads: 1}}
{more}
""")
        return path

    def new_run(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "run"

    def train(self, *options, ranks=0, **config):
        self.run_dir = self.new_run()
        return self.ok("train", self.config(**config), f"run_dir={self.run_dir}", *options,
                       ranks=ranks)

    def samples(self, step=1):
        out = self.ok("rollouts", self.run_dir / f"rollouts/step_{step:06}.h5", "--json", "--limit",
                      "0").stdout
        return [json.loads(line) for line in out.splitlines()]

    def step_metrics(self, stage="grpo"):
        return [line for line in metrics(self.run_dir) if line["stage"] == stage]

    # What a program is told.

    def test_a_row_goes_through_whole(self):
        row = ('{"prompt": [{"role": "user", "content": "<q>", "name": "x"}], "z": 1, "a": {"deep": [1, [2, {"k": null}]]}, '
               '"big": 123456789012345678901234567890, "float": 1.10, "text": "\u00e4\u4e2d\U0001f600\\u0041\\n", "data_source": "mine", '
               '"reward_model": {"ground_truth": {"any": [1, 2]}}}')
        self.rows([row])
        self.program(f"open({str(self.folder / 'seen')!r}, 'a').write(line)\n" + NORMAL)
        self.train(batch=1, n=2)
        lines = (self.folder / "seen").read_text().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertTrue(all(line.endswith('"row": ' + row + "}") for line in lines), lines)
        requests = sorted((json.loads(line) for line in lines),
                          key=lambda request: request["episode"])
        self.assertEqual([request["episode"] for request in requests],
                         ["train/0/0/0", "train/0/0/1"])
        first = requests[0]
        self.assertEqual((first["split"], first["turn"], first["state"], first["data_source"]),
                         ("train", 0, None, "mine"))
        self.assertEqual((first["prompt"], first["ground_truth"]), ("<q>", {"any": [1, 2]}))
        self.assertEqual(first["messages"], [{"role": "user", "content": "<q>", "name": "x"}])
        self.assertIn(first["response"], ["a", "b", "c", "d"])
        self.assertEqual(first["tokens_left"], 6)

    def test_where_a_row_has_its_prompt(self):
        self.rows([{"prompt": "<q>", "answer": 7},
                   {"messages": [{"role": "user", "content": "<q>"}], "ground_truth": "8"},
                   {"question": "<q>", "answer": "#### 9"}, {"problem": "<q>"}])
        self.program(f"open({str(self.folder / 'seen')!r}, 'a').write(line)\n" + NORMAL)
        self.train(n=2)
        requests = map(json.loads, (self.folder / "seen").read_text().splitlines())
        truths = {request["episode"]: request["ground_truth"] for request in requests}
        self.assertEqual([truths[f"train/0/{prompt}/0"] for prompt in range(4)],
                         [7, "8", "#### 9", None])
        self.rows([{"prompt": "<q>"}, {"text": "<q>"}])
        self.fails(2, "train", self.config(), f"run_dir={self.new_run()}",
                   says=["rows.jsonl:2", '"prompt", "messages"'])
        self.ok("train", self.config(), f"run_dir={self.new_run()}", "data.on_error=skip")

    # What it may answer.

    def test_rewards_and_their_parts(self):
        self.program("answer(reward=ord(request['response']) - ord('a'), acc=request['response'] == 'a', style=0.25, note='x', list=[1])")
        self.train(n=4)
        for sample in self.samples():
            self.assertEqual(sample["reward"], ord(sample["response"]) - ord("a"))
            self.assertEqual(sample["reward_extra"],
                             {"correct": float(sample["response"] == "a"), "style": 0.25})
        line = self.step_metrics()[0]
        self.assertEqual((line["rollout/dropped_samples"], line["rollout/dropped_groups"]), (0, 0))
        self.assertEqual(line["reward_extra/style/mean"], 0.25)

    def test_several_turns(self):
        self.program("""
            if request["turn"] == 0:
                answer(observation="?", state={"first": request["response"], "n": 1.10})
            else:
                assert request["state"] == {"first": request["messages"][1]["content"], "n": 1.10}, request
                assert request["messages"][2] == {"role": "user", "content": "?"}, request
                answer(reward=ord(request["state"]["first"]), turns=request["turn"] + 1)
        """)
        self.train(n=4)
        for sample in self.samples():
            self.assertEqual(sample["response"], sample["response"][0] + "?z")
            self.assertEqual((sample["reward"], sample["reward_extra"]),
                             (ord(sample["response"][0]), {"turns": 2}))
        self.assertEqual(self.step_metrics()[0]["rollout/dropped_samples"], 0)

    def test_turns_without_end_are_cut(self):
        self.program("answer(observation='?')")
        self.train(n=2)
        self.assertEqual({(sample["reward"], sample["finish_reason"]) for sample in self.samples()},
                         {(0, "length")})

    def test_turns_of_a_chat(self):
        template = ("{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>\n{% endfor %}"
                    "{% if add_generation_prompt %}[assistant]{% endif %}")
        self.model.say("]", "a", "b", "c", "d")
        self.model.write(eos_token="<eos>", chat_template=template)
        self.program("""
            if request["turn"] < 2:
                answer(observation=f"no{request['turn']}")
            else:
                answer(reward=1.0 + request["turn"])
        """)
        self.train("data.apply_chat_template=true", "data.max_prompt_length=64", n=2, length=120)
        end = 256
        for sample in self.samples():
            said = bytes(token if token < end else 36 for token in sample["tokens"]).decode()
            self.assertRegex(said, r"^[abcd]\$\n\[user\]no0\$\n\[assistant\][abcd]\$\n\[user\]no1\$\n\[assistant\][abcd]\$$")
            self.assertEqual(sample["reward"], 3)

    # What becomes of a sample whose program fails.

    def failing(self, when, what, external="", workers=2, **config):
        """The second row is poison, for which the program does `what`; all others are answered."""
        self.rows([{"prompt": "<q>"}, {"prompt": "<poison>"}, {"prompt": "<q>"}, {"prompt": "<q>"}])
        self.program(f"""
            if request["prompt"] == "<poison>" and ({when}):
                {what}
            else:
                {NORMAL}
        """)
        # One answer first, so that the program is known to work.
        return self.train(f"data.external.workers={workers}", external=external, **config)

    def test_failures_are_dropped_and_counted(self):
        bare = "sys.stdout.buffer.write({}); sys.stdout.flush()"
        cases = {
            "a broken line": bare.format("b'{\"id\": 3, \"rew\\n'"),
            "half a line, then death": bare.format("b'{\"id\": 3, \"rew'") + "; os._exit(1)",
            "NaN": "answer(reward=float('nan'))",
            "infinity": "answer(reward=float('-inf'))",
            "beyond a double": bare.format("b'{\"id\": %d, \"reward\": 1e999}\\n' % request['id']"),
            "beyond a float": "answer(reward=1e300)",
            "no reward": "answer(acc=True)",
            "text": "answer(reward='1')",
            "null": "answer(reward=None)",
            "reward and observation": "answer(reward=1, observation='x')",
            "another's id": "print(json.dumps({'id': request['id'] + 1, 'reward': 5}), flush=True)",
            "no id": "print(json.dumps({'reward': 5}), flush=True)",
            "a stray print": "print('debug', flush=True)",
            "a list": "print([1], flush=True)",
            "no UTF-8": bare.format("b'\\xff\\xfe\\n'"),
            "deep nesting": "print('[' * 1000000 + ']' * 1000000, flush=True)",
            "death": "os._exit(1)",
            "SIGKILL": "os.kill(os.getpid(), 9)",
            "an exception": "raise KeyError('truth')",
            "an observation that is no text": "answer(observation=5)",
            "a twin": "print('{\"id\": %d, \"reward\": 1, \"reward\": 0}' % request['id'], flush=True)",
        }
        # A row of each kind, whose second sample is treated so; every other one is answered.
        self.rows([{"prompt": "<q>", "kind": kind} for kind in cases] +
                  [{"prompt": "<q>", "kind": ""}])
        self.program(
            "kind = request['row']['kind'] if request['episode'].endswith('/1') else ''\n" +
            "".join(f"if kind == {kind!r}: {what}\nel" for kind, what in cases.items()) +
            f"se: {NORMAL}")
        result = self.train(batch=len(cases) + 1, external=", retries: 1")
        kept = {(sample["prompt_index"], sample["sample_index"]) for sample in self.samples()}
        for index, kind in enumerate([*cases, ""]):
            self.assertEqual([sample for sample in range(4) if (index, sample) in kept],
                             [0, 2, 3] if kind else [0, 1, 2, 3], kind)
        self.assertEqual({sample["reward"] for sample in self.samples()}, {1},
                         "never 0, never another's")
        self.assertIn(f"{len(cases)} of {4 * len(cases) + 4} samples are dropped; {2 * len(cases)} request(s) failed", result.stderr)
        line = self.step_metrics()[0]
        self.assertEqual((line["rollout/dropped_samples"], line["rollout/dropped_groups"]),
                         (len(cases), 0))

    def test_what_a_program_says_on_stderr_is_shown(self):
        result = self.failing("request['episode'].endswith('/1')",
                              "raise KeyError('my truth \\x1b[31m')")
        self.assertIn("KeyError: 'my truth", result.stderr)
        self.assertNotIn("\x1b[31m'", result.stderr.split("KeyError")[1][:60])

    def test_a_program_that_hangs(self):
        begun = time.time()
        self.failing("request['episode'].endswith('/1')", "time.sleep(1000)",
                     external=", retries: 0")
        self.assertEqual(self.step_metrics()[0]["rollout/dropped_samples"], 1)
        self.assertLess(time.time() - begun, 60)

    def test_one_that_fails_once_loses_nothing(self):
        flag = self.folder / "failed"
        result = self.failing(f"not os.path.exists({str(flag)!r})",
                              f"open({str(flag)!r}, 'w'); os._exit(1)", workers=1)
        line = self.step_metrics()[0]
        self.assertEqual((line["rollout/dropped_samples"], len(self.samples())), (0, 16))
        self.assertIn("0 of 16 samples are dropped; 1 request(s) failed, 0 of them for good",
                      result.stderr)

    def test_a_group_of_which_one_is_left_is_dropped(self):
        result = self.failing("not request['episode'].endswith('/2')", "os._exit(1)",
                              external=", retries: 0")
        self.assertIn("3 of 16 samples are dropped, and 1 group(s) with too few left",
                      result.stderr)
        line = self.step_metrics()[0]
        self.assertEqual((line["rollout/dropped_samples"], line["rollout/dropped_groups"]), (3, 1))
        self.assertEqual({sample["prompt_index"] for sample in self.samples()}, {0, 2, 3})

    def test_when_nothing_is_left_the_run_ends(self):
        self.rows([{"prompt": "<q>"}, {"prompt": "<poison>"}])
        self.program(f"if request['prompt'] == '<poison>': os._exit(5)\n{NORMAL}")
        for ranks in (0, 2):
            config = self.config(external=", retries: 0", batch=max(ranks, 1), n=4, steps=2)
            if ranks:
                self.rows([{"prompt": "<q>"}] * 2 + [{"prompt": "<poison>"}] * 2)
            result = self.fails(1, "train", config, f"run_dir={self.new_run()}", ranks=ranks,
                                says=["generate step 2: ", "nothing is left", "exit status 5"])
            self.assertEqual(result.stderr.count("nothing is left"), 1, result.stderr)

    def test_garbage_without_end_is_never_stored(self):
        self.failing("request['episode'].endswith('/1')",
                     "\n                while True: sys.stdout.write('x' * 1000000)",
                     external=", retries: 0")
        line = self.step_metrics()[0]
        self.assertEqual(line["rollout/dropped_samples"], 1)
        self.assertLess(line["perf/peak_memory_gib"], 0.5)
        self.failing("True", f"sys.stderr.write('noise ' * 10000000); {NORMAL}", workers=1)
        self.assertEqual(self.step_metrics()[0]["rollout/dropped_samples"], 0)

    def test_a_command_that_does_not_work_is_one_error(self):
        config = self.config()
        for what, says in [("no-such-program --x", ["no-such-program", "cannot be run"]),
                           ("exit 3", ["exit status 3"]),
                           ("echo my words >&2; exit 1", ["its stderr: my words"]),
                           ("kill -11 $$", ["signal 11"]), ("true", ["exit status 0"])]:
            with self.subTest(what):
                self.fails(2, "train", config, f"run_dir={self.new_run()}",
                           f"data.external.command={what}", says=["data.external.command", *says])
        result = self.fails(2, "train", self.config(batch=4), f"run_dir={self.new_run()}",
                            "data.external.command=no-such-program", ranks=2,
                            says=["no-such-program", "cannot be run"])
        self.assertNotIn("internal", result.stderr)
        # Before an hour of SFT, not after it; and before a run is begun at all.
        text = self.folder / "t.txt"
        text.write_text("abc " * 20)
        run_dir = self.new_run()
        self.fails(2, "train", config, f"run_dir={run_dir}",
                   "data.external.command=python3 -c 'import no_such_module'",
                   "sft.total_training_steps=50", f"sft.text_files=[{text}]",
                   says=["no_such_module"])
        self.assertFalse((pathlib.Path(run_dir) / "metrics.jsonl").exists())
        self.fails(2, "config", config, "--files",
                   "data.external.command=python3 -c 'import no_such_module'",
                   says=["no_such_module"])
        self.fails(2, "train", config, f"run_dir={self.new_run()}", "data.external.command= ",
                   says=["data.external.command is not set"])
        self.fails(2, "train", config, f"run_dir={self.new_run()}", "data.env=arithmetic",
                   "data.train_files=[]", "data.external.workers=2",
                   says=["data.external.workers", "set data.env to external"])
        self.fails(2, "train", config, f"run_dir={self.new_run()}", "data.train_files=[]",
                   says=["data.train_files"])
        self.fails(2, "train", config, f"run_dir={self.new_run()}", "data.reward_rule=gsm8k",
                   says=["data.reward_rule", "external"])

    def test_rows_teach_too(self):
        self.rows([{"prompt": "<q>", "response": "b"}] * 4)
        self.program("answer(reward=float(request['response'] == 'b'))")
        self.train(steps=1, more="sft: {total_training_steps: 30, train_batch_size: 4, max_length: 16, optim: {lr: 1.0e-2}}")
        self.assertGreater(self.step_metrics()[0]["critic/rewards/mean"], 0.6)

    # A slow one, and others.

    def test_a_slow_sample_does_not_stop_the_others(self):
        log = self.folder / "log"
        self.program(f"""
            if request["episode"] == "train/0/0/0": time.sleep(4)
            open({str(log)!r}, "a").write(request["episode"] + "\\n")
            {NORMAL}
        """)
        self.rows([{"prompt": "<q>"}] * 16)
        # One group at a time fits the engine: prompts 1 to 15 go through it while the first waits.
        self.train("rollout.max_num_seqs=4", batch=16)
        self.assertEqual(log.read_text().splitlines()[-1], "train/0/0/0")
        self.assertEqual(self.step_metrics()[0]["rollout/dropped_samples"], 0)

    def test_layouts_and_arrival_change_no_bit(self):
        self.program(
            "time.sleep(0.02 * (hash((request['episode'], os.getpid())) % 5))\n"
            "if request['turn'] == 0 and request['response'] in 'ab': answer(observation='?')\n"
            "else: answer(reward=float(request['response'] in 'az'))")
        hashes = set()
        for options, ranks in [((), 0), (("data.external.workers=1", "rollout.max_num_seqs=4"), 0),
                               ((), 2), (("cluster.placement=split",), 2)]:
            self.train("trainer.save_freq=0", *options, ranks=ranks, steps=3)
            hashes.add(self.checkpoint_hash(self.run_dir))
            self.assertEqual([line["rollout/dropped_samples"] for line in self.step_metrics()],
                             [0, 0, 0])
        self.assertEqual(len(hashes), 1, hashes)

    def test_ranks_share_what_was_dropped(self):
        self.failing("True", "os._exit(1)", external=", retries: 0")
        alone = self.step_metrics()[0]
        for options in [(), ("cluster.placement=split",)]:
            self.ok("train", self.config(external=", retries: 0"),
                    f"run_dir={(run_dir := self.new_run())}", *options, ranks=2)
            shared = metrics(run_dir)[0]
            for key in ["rollout/dropped_samples", "rollout/dropped_groups", "critic/rewards/mean", "training/global_batch_size_samples"]:
                self.assertEqual(shared[key], alone[key], key)

    def test_killed_and_resumed(self):
        self.program("answer(reward=float(request['response'] in 'ab'))")
        self.train("trainer.save_freq=1", steps=4)
        whole = self.checkpoint_hash(self.run_dir)
        config, cut = self.config(steps=4), self.new_run()
        process = subprocess.Popen(
            command("train", config, f"run_dir={cut}", "trainer.save_freq=1"), env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for(cut / "checkpoints/step_000002", process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The workers' arguments have the folder in them: all are gone, though their actor was
        # killed.
        self.wait_until_gone(str(self.folder / "program.py"))
        self.ok("train", config, f"run_dir={cut}", "trainer.save_freq=1", "data.external.workers=1",
                "data.external.timeout_s=60")
        self.assertEqual(self.checkpoint_hash(cut), whole)

    def wait_until_gone(self, mark, seconds=10):
        def living():
            found = []
            for entry in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    if mark in (entry / "cmdline").read_text() and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                        found.append(entry.name)
                except OSError:
                    pass
            return found
        end = time.time() + seconds
        while living() and time.time() < end:
            time.sleep(0.05)
        self.assertEqual(living(), [])

    def test_workers_that_do_not_end_by_themselves_are_killed(self):
        self.program(NORMAL, head="""
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                while True: time.sleep(1)
            """)
        (self.folder / "program.py").write_text((self.folder / "program.py").read_text() +
                                                "\nwhile True: time.sleep(1)\n")
        self.train()
        self.wait_until_gone(str(self.folder / "program.py"))
        # And when their actor is killed while they are at work.
        self.program("time.sleep(1000)")
        process = subprocess.Popen(
            command("train", self.config(), f"run_dir={self.new_run()}",
                    "data.external.timeout_s=1000"), env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        time.sleep(3)
        process.kill()
        process.wait()
        self.wait_until_gone(str(self.folder / "program.py"))

    def test_evaluation_leaves_dropped_samples_out(self):
        self.rows([{"prompt": "<q>"}, {"prompt": "<poison>"}], "val.jsonl")
        self.program(f"""
            if request["prompt"] == "<poison>" and not request["episode"].endswith("/0"): os._exit(1)
            if request["split"] == "val": answer(reward=0.5, acc=True)
            else: {NORMAL}
        """)
        options = [f"data.val_files=[{self.folder}/val.jsonl]", "rollout.val_n=4", "rollout.val_temperature=1"]
        config = self.config(external=", retries: 0")
        result = json.loads(self.ok("eval", config, "--json", *options).stdout)
        self.assertEqual((result["dropped_samples"], result["mean_reward"]), (3, 0.5))
        self.assertEqual([result[f"pass@{k}"] for k in (1, 2, 4)], [1, 1, 1])
        self.train(*options, "trainer.test_freq=1", external=", retries: 0")
        line = self.step_metrics("val")[-1]
        self.assertEqual(
            (line["val-aux/dropped_samples"], line["val-core/external/acc/mean@4"],
             line["val-core/external/acc/pass@4"] if "val-core/external/acc/pass@4" in line else 1),
            (3, 1, 1))

    # The examples, as they stand.

    def example(self, name, *options):
        run_dir = self.new_run()
        result = subprocess.run([
            BIN, "train", f"examples/{name}.yaml", f"run_dir={run_dir}", "cluster.threads=1",
            *options
        ], cwd=SOURCE, env=environment(), capture_output=True, text=True, timeout=300,
                                stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        lines = metrics(run_dir)
        self.assertEqual(
            {line["rollout/dropped_samples"] for line in lines if line["stage"] == "grpo"}, {0})
        return lines

    def test_the_reward_of_the_examples(self):
        lines = self.example("reward")
        validations = [line["val-core/external/acc/mean@1"] for line in lines if line["stage"] == "val"]
        self.assertGreater(validations[-1], validations[0] + 0.3)
        self.assertLess(len((SOURCE / "examples/reward.py").read_text().splitlines()), 13)

    def test_the_environment_of_the_examples(self):
        lines = self.example("multi_turn", "trainer.total_training_steps=40")
        steps = [line for line in lines if line["stage"] == "grpo"]
        self.assertGreater(steps[-1]["critic/rewards/mean"], steps[0]["critic/rewards/mean"] + 0.1)
        self.assertGreater(steps[-1]["num_turns/mean"], 2)


if __name__ == "__main__":
    unittest.main()
