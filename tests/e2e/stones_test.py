"""Small stones of the first hour: mistyped words, odd paths, small stacks, limits, a run's folder
as a model."""
import json
import resource
import shutil
import subprocess
import unittest

from harness import OTHER_ENV, QUICKSTART, SHORT, SOURCE, Case, ScriptedModel, command, environment, run

RAW = ("filesystem error", "std::", "basic_string", "bad_alloc", "json.exception", "what()",
       "terminate called", "yaml-cpp")


class CommandLines(Case):
    def line(self, *words, says=(), code=2):
        result = self.fails(code, *words, says=says)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        for raw in RAW:
            self.assertNotIn(raw, result.stderr)
        return result.stderr

    def test_a_mistyped_command_is_named(self):
        for word, meant in (("trian", "train"), ("trainn", "train"), ("evla", "eval"), ("genrate", "generate"), ("logprob", "logprobs"),
                            ("rollout", "rollouts"), ("cfg", None), ("cpkt", "ckpt"), ("lauch", "launch"), ("xyzzy", None)):
            text = self.line(word, says=[f"there is no command '{word}'"])
            self.assertIn(f"did you mean {meant}?" if meant else "train, launch", text)
        self.line(
            "ckpt", "shwo", "m",
            says=["ckpt: there is no command 'shwo'; did you mean show?", "orrery ckpt --help"])
        self.line("bench", "rolout", says=["did you mean rollout?"])
        self.line("ckpt", "x" * 500, says=["there is no command 'xxx"])

    def test_a_missing_command_lists_them(self):
        self.line(says=["a command is missing: train, launch", "rollouts or audit", "orrery --help"])
        self.line("ckpt", says=["ckpt: a command is missing: ls, show", "or convert"])
        self.line("bench", says=["bench: a command is missing: rollout, train or step"])
        self.assertIn("ls", self.ok("ckpt", "--help").stdout)

    def test_a_mistyped_option_is_named(self):
        model = ["generate", "--model", "m", "--prompt", "a"]
        for option, meant in (("--temprature", "--temperature"), ("--temp", "--temperature"), ("--max-tokens", None), ("--jsn", "--json"),
                              ("--topp", "--top-p"), ("--max-new-token", "--max-new-tokens"), ("-t", None), ("--xyzzy", None)):
            for words in ([option, "1"], [option + "=1"]):
                text = self.line(*model, *words,
                                 says=[f"there is no option {option}", "orrery generate --help"])
                self.assertEqual(f"did you mean {meant}?" in text, meant is not None, text)
        self.line("--foo", says=["orrery: there is no option --foo"])
        self.line("-v", says=["there is no option -v"])
        self.line("config", QUICKSTART, "--rank", "2", says=["did you mean --ranks?"])
        self.line("train", QUICKSTART, "--actor.optim.lr=1", says=["set without dashes"])
        self.line("train", "--hepl", says=["did you mean --help?"])
        self.line("ckpt", "show", "m", "--jsno", says=["did you mean --json?"])
        self.assertNotIn("no option", run(*model, "-n2").stderr)

    def test_missing_words_and_values(self):
        self.line("train", says=["train: CONFIG is missing"])
        self.line("launch", "-n", "2", says=["launch: CONFIG is missing"])
        self.line("rollouts", says=["PATH is missing"])
        self.line("generate", says=["generate: --model is missing"])
        self.line("ckpt", "diff", "a", says=["B is missing"])
        self.line("generate", "--model", "m", "--prompt", "a", "--temperature",
                  says=["--temperature needs a value"])
        self.line("generate", "--model", "m", "--prompt", "a", "b",
                  says=["there is no place for 'b'"])

    def test_numbers_out_of_range_name_option_and_range(self):
        model = ["generate", "--model", "m", "--prompt", "a"]
        for words, says in ((["--temperature", "x"], "--temperature: give a number from 0 to 100, not x"),
                            (["--temperature", "nan"], "--temperature: give a number from 0 to 100, not nan"),
                            (["--top-p", "2"], "--top-p: give a number from 1e-06 to 1, not 2"),
                            (["--top-k", "9999999999"], "--top-k: give a whole number of at least 0 and at most 2147483647"),
                            (["--max-new-tokens", "0"], "--max-new-tokens: give a whole number of at least 1"),
                            (["--max-new-tokens", "9" * 30], "--max-new-tokens: give a whole number"),
                            (["-n", "5000"], "at most 4096, not 5000"), (["--dtype", "f16"], "--dtype: give f32 or bf16, not f16")):
            self.line(*model, *words, says=[says])
        self.line("launch", "-n", "99999999999", QUICKSTART,
                  says=["--ranks: give a whole number of at least 1 and at most"])
        self.line("config", QUICKSTART, "--ranks", "99999999999",
                  says=["--ranks: give a whole number"])
        self.line("ckpt", "export", "a", "b", "--dtype", "f64",
                  says=["give f32, bf16 or f16, not f64"])
        for bench, option in (("train", "--batch"), ("train", "--seq-len"), ("rollout", "--batch"),
                              ("step", "--prompts"), ("step", "--samples"), ("step", "--gen-len"),
                              ("step", "--max-token-len"), ("step", "--repeats"),
                              ("step", "--gradient-shards")):
            self.line("bench", bench, "--model", "m", option, "99999999999",
                      says=[f"{option}: give a whole number", "at most"])
        self.line("bench", "train", "--model", "m", "--batch", "10000000", "--seq-len", "1000",
                  says=["lower --batch or --seq-len"])
        self.line("bench", "step", "--model", "m", "--prompts", "10000000", "--samples", "16000000",
                  says=["lower --prompts, --samples"])
        self.line("bench", "rollout", "--model", "m", "--batch", "16000000", "--gen-len", "10000",
                  says=["lower --batch"])


class Paths(Case):
    def test_paths_that_cannot_be(self):
        loop, dangling, file = self.folder / "loop", self.folder / "dangling", self.folder / "file"
        loop.symlink_to(loop)
        dangling.symlink_to(self.folder / "nowhere")
        file.write_text("hi")
        for path in (file, file / "x", loop, loop / "x", dangling, self.folder / ("n" * 300),
                     "/dev/full", "/dev/null/x", "/proc/x", ""):
            for words in (["train", QUICKSTART, *SHORT, f"run_dir={path}"], ["train", path], ["config", path], ["launch", "-n", "1", path],
                          ["generate", "--model", path, "--prompt", "a"], ["logprobs", "--model", path, "--ids", file],
                          ["bench", "train", "--model", path], ["ckpt", "ls", path], ["ckpt", "show", path], ["ckpt", "verify", path],
                          ["rollouts", path], ["eval", QUICKSTART, "--checkpoint", path], ["ckpt", "import", path, self.folder / "new"],
                          ["train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", f"trainer.resume={path}"],
                          ["train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", f"model.path={path}"],
                          ["train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", *OTHER_ENV, "data.env=gsm8k", f"data.train_files=[{path}]"],
                          ["train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", f"sft.text_files=[{path}]"]):
                if path == "" and words[0] in ("eval", "train"):
                    continue  # an empty key or option: the default, or the config's own error
                if path == file and str(words[-1]).startswith("sft.text_files"):
                    continue  # a good text
                result = run(*words, timeout=60)
                self.assertIn(result.returncode, (1, 2), f"{words}\n{result.stderr}")
                errors = [line for line in result.stderr.splitlines() if line.startswith("orrery: ")]
                self.assertEqual(len(errors), 1, f"{words}\n{result.stderr}")
                for raw in RAW:
                    self.assertNotIn(raw, result.stderr, words)
                self.assertNotIn("flight recorder", result.stderr, words)

    def test_a_file_where_a_run_writes_a_folder(self):
        run_dir = self.folder / "run"
        run_dir.mkdir()
        for name in ("checkpoints", "tensorboard", "metrics.jsonl", "config.yaml"):
            place = run_dir / name
            (place.mkdir if "." in name else place.touch)()
            result = run("train", QUICKSTART, *SHORT, f"run_dir={run_dir}",
                         "trainer.tensorboard=true")
            text = result.stderr
            for raw in RAW:
                self.assertNotIn(raw, text)
            self.assertNotIn("flight recorder", text)
            self.assertIn(name, text)
            self.assertNotEqual(result.returncode, 0)
            shutil.rmtree(run_dir)
            run_dir.mkdir()

    def test_user_errors_have_no_flight_recorder(self):
        model = self.folder / "model"
        shutil.copytree(SOURCE / "experiments/quickstart_model", model)
        (model / "model.safetensors").write_bytes(b"12345678" * 9)
        for words in (["bench", "rollout", "--model", model], ["bench", "step", "--model", model],
                      ["eval", QUICKSTART, "--checkpoint", self.folder / "none"], ["eval", QUICKSTART, "--checkpoint", model],
                      ["train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", f"model.path={model}", "model.from_scratch=false"]):
            for ranks in (0, 2):
                result = run(*words, ranks=ranks)
                self.assertIn(result.returncode, (1, 2), result.stderr)
                self.assertNotIn("flight recorder", result.stderr, words)

    def test_an_unexpected_failure_has_one(self):
        result = subprocess.run(command("train", QUICKSTART, *SHORT,
                                        f"run_dir={self.folder}/r"), text=True, capture_output=True,
                                env=dict(environment(), ORRERY_FAULT="learner.update:error@3"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("flight recorder: ", result.stderr)
        status = json.loads((self.folder / "r/status.json").read_text())
        self.assertEqual((status["state"], status["exit_code"]), ("failed", 1))
        self.assertIn("learner.update", status["error"])

    def test_a_disk_that_is_full_has_none(self):
        result = subprocess.run(command("train", QUICKSTART, *SHORT,
                                        f"run_dir={self.folder}/r"), text=True, capture_output=True,
                                env=dict(environment(), ORRERY_FAULT="file.write:enospc@1"))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("No space left", result.stderr)
        self.assertNotIn("flight recorder", result.stderr)


class SmallStacks(Case):
    """ulimit -s: kernels keep tiles on the stack, readers of nested input recurse."""

    def small(self, kilobytes, *words, ranks=0):
        def limit():
            resource.setrlimit(resource.RLIMIT_STACK, (kilobytes << 10, kilobytes << 10))

        return subprocess.run(command(*words, ranks=ranks), text=True, capture_output=True,
                              env=environment(), preexec_fn=limit, timeout=120)

    def test_no_command_needs_a_large_one(self):
        deep = self.folder / "deep.yaml"
        deep.write_text("a: " + "[" * 3000 + "]" * 3000)
        chat = self.folder / "chat.json"
        chat.write_text("[" * 100000 + "]" * 100000)
        template = ScriptedModel(self.folder / "chat")
        template.write(eos_token="<eos>", files={"chat_template.jinja": "{{ " + "(" * 30 + "messages[0].content" + ")" * 30 + " }}"})
        recursive = ScriptedModel(self.folder / "recursive")
        recursive.write(eos_token="<eos>", files={"chat_template.jinja": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(messages[0].content|length * 100000) }}"})
        for kilobytes in (512, 128):
            run_dir = self.folder / f"run{kilobytes}"
            small = lambda *words, **kwargs: self.small(kilobytes, *words, **kwargs)
            for words in (["train", QUICKSTART, *SHORT, f"run_dir={run_dir}"],
                          ["train", QUICKSTART, *SHORT, "cluster.threads=2", f"run_dir={run_dir}2"],
                          ["ckpt", "show", run_dir], ["ckpt", "verify", run_dir], ["ckpt", "export", run_dir, f"{run_dir}-hf"],
                          ["generate", "--model", f"{run_dir}-hf", "--prompt", "1+1="],
                          ["generate", "--model", run_dir, "--prompt", "1+1=", "--threads", "2"],
                          ["eval", QUICKSTART, "--checkpoint", run_dir, "data.val_size=4"], ["config", QUICKSTART],
                          ["bench", "step", "--model", f"{run_dir}-hf", "--prompts", "2", "--samples", "2", "--prompt-len", "4", "--gen-len", "4",
                           "--repeats", "1"],
                          ["generate", "--model", template.folder, "--chat", "--prompt", "x", "--print-prompt"]):
                result = small(*words)
                self.assertEqual(result.returncode, 0,
                                 f"ulimit -s {kilobytes}: {words}\n{result.stderr}")
            for words in (["config", deep], ["generate", "--model", template.folder, "--chat", "--messages", chat],
                          ["generate", "--model", recursive.folder, "--chat", "--prompt", "x", "--print-prompt"]):
                result = small(*words)
                self.assertIn(result.returncode, (1, 2),
                              f"ulimit -s {kilobytes}: {words}\n{result.stderr}")
            if kilobytes >= 512:  # with less, mpirun itself crashes
                result = small("train", QUICKSTART, *SHORT, f"run_dir={run_dir}mpi", ranks=2)
                self.assertEqual(result.returncode, 0, result.stderr)


class RunAsModel(Case):
    def test_a_runs_folder_is_a_model(self):
        run_dir, exported = self.folder / "run", self.folder / "hf"
        self.ok("train", QUICKSTART, *SHORT, f"run_dir={run_dir}", "trainer.save_freq=2")
        self.ok("ckpt", "export", run_dir, exported)
        newest = sorted((run_dir / "checkpoints").iterdir())[-1]
        ids = self.folder / "ids.json"
        ids.write_text("[1, 2, 3, 4]")
        words = ["--prompt", "12+34=", "--json", "--seed", "3"]

        def generated(model):
            row = json.loads(self.ok("generate", "--model", model, *words).stdout)
            row.pop("first_token_s")
            return row

        expected = generated(exported)
        scores = self.ok("logprobs", "--model", exported, "--ids", ids, "--json").stdout
        for model in (run_dir, run_dir / "checkpoints", newest, f"{run_dir}/"):
            self.assertEqual(generated(model), expected, model)
            self.assertEqual(
                self.ok("logprobs", "--model", model, "--ids", ids, "--json").stdout, scores, model)
        self.assertIn(str(newest), self.ok("generate", "--model", run_dir, *words).stderr)
        self.ok("bench", "train", "--model", run_dir, "--batch", "2", "--seq-len", "8", "--repeats",
                "1")
        # A newest one that is torn is passed over, aloud.
        slice_file = next(newest.glob("rank_*.h5"))
        slice_file.write_bytes(slice_file.read_bytes()[:-50])
        result = self.ok("generate", "--model", run_dir, *words)
        self.assertIn(f"{newest} is passed over", result.stderr)
        self.fails(1, "generate", "--model", newest, *words, says=[str(newest)])
        for folder in (run_dir / "checkpoints").iterdir():
            (folder / "manifest.json").unlink()
        self.fails(2, "generate", "--model", run_dir, *words,
                   says=["holds no good checkpoint", "manifest.json is missing"])
        # Where a model folder is needed, a run's is called one.
        self.ok("train", QUICKSTART, *SHORT, f"run_dir={run_dir}3")
        self.fails(
            2, "train", QUICKSTART, *SHORT, f"run_dir={self.folder}/r", f"model.path={run_dir}3",
            "model.from_scratch=false",
            says=["it is a run's folder", f"trainer.resume={run_dir}3", "orrery ckpt export"])

    def test_special_tokens_are_the_models(self):
        model = ScriptedModel(self.folder / "m", special=["<eos>", "<end>"], words=["<q>"])
        model.say_all("<q>", "a", "<end>", "b", "<end>")
        model.write(config={"eos_token_id": [256, 257], "bos_token_id": 256},
                    generation_config={"eos_token_id": 257})
        checkpoint = self.folder / "step_000000"
        self.ok("ckpt", "import", model.folder, checkpoint)
        for folder in (model.folder, checkpoint):
            row = json.loads(
                self.ok("generate", "--model", folder, "--prompt", "<q>", "--temperature", "0",
                        "--json").stdout)
            self.assertEqual((row["text"], row["finish_reason"]), ("a", "stop"), folder)
        (model.folder / "generation_config.json").unlink()
        shutil.rmtree(checkpoint)
        self.ok("ckpt", "import", model.folder,
                checkpoint)  # what ends a sequence stands in config.json alone
        row = json.loads(
            self.ok("generate", "--model", checkpoint, "--prompt", "<q>", "--temperature", "0",
                    "--json").stdout)
        self.assertEqual((row["text"], row["finish_reason"]), ("a", "stop"))

    def test_folders_that_are_none(self):
        (self.folder / "empty").mkdir()
        (self.folder / "run/checkpoints").mkdir(parents=True)
        words = ["--prompt", "a"]
        self.fails(2, "generate", "--model", self.folder / "empty", *words,
                   says=["neither a Hugging Face model folder", "run's folder"])
        self.fails(2, "generate", "--model", self.folder / "run", *words,
                   says=["holds no good checkpoint; has the run saved one yet?"])
        self.fails(2, "generate", "--model", self.folder / "none", *words,
                   says=["there is no such folder"])

    def test_long_sequences_name_the_option(self):
        model = ScriptedModel(self.folder / "m")
        model.default = "a"
        model.write(context=1 << 24, config={"num_key_value_heads": 1})
        result = self.ok("generate", "--model", model.folder, "--prompt", "a", "--max-new-tokens",
                         "3", "--json", "--temperature", "0")
        self.assertEqual(json.loads(result.stdout)["text"], "aaa")
        large = self.folder / "large"  # no weights: random ones, were it not refused before
        large.mkdir()
        config = json.loads((model.folder / "config.json").read_text())
        (large / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 64, "num_attention_heads": 8, "num_key_value_heads": 8,
                                                       "head_dim": 64}))
        for bench, words in (("rollout", []), ("step", ["--prompts", "1"])):
            self.fails(2, "bench", bench, "--model", large, "--samples", "1", *words, "--gen-len", str((1 << 24) - 64),
                       says=["the keys and values of one sequence of 16777216 tokens take", "lower --prompt-len or --gen-len"])
        shutil.copy(model.folder / "tokenizer.json", large)
        self.fails(2, "generate", "--model", large, "--prompt", "a", "--max-new-tokens",
                   str(1 << 24), says=["GiB", "lower --max-new-tokens"])
        short = ScriptedModel(self.folder / "s")
        short.write(context=8)
        self.fails(2, "generate", "--model", short.folder, "--prompt", "a" * 9,
                   says=["the longest prompt has 9 tokens", "8 positions"])

    def test_chat_advice_can_be_followed(self):
        model = ScriptedModel(self.folder / "m")
        model.write(eos_token="<eos>")
        messages = self.folder / "m.json"
        messages.write_text('[{"role": "user", "content": "hi"}]')
        self.fails(2, "generate", "--model", model.folder, "--chat", "--prompt", "x",
                   says=["leave --chat out to continue"])
        for words in (["--messages", messages], ["--prompt", "x", "--system", "s"]):
            result = self.fails(2, "generate", "--model", model.folder, "--chat", *words,
                                says=["or a model that has one"])
            self.assertNotIn("leave --chat out to", result.stderr)

    def test_duplicate_keys_are_errors(self):
        model = ScriptedModel(self.folder / "m")
        model.write(eos_token="<eos>", chat_template="{{ messages[0].content }}")
        path = self.folder / "x.json"
        for text, key in (('[{"role": "user", "content": "a", "content": "b"}]', "content"),
                          ('{"messages": [{"role": "user", "content": "a"}], "messages": []}', "messages"),
                          ('[{"role": "user", "content": "a"}]\n[{"role": "user", "role": "user", "content": "a"}]', "role")):
            path.write_text(text)
            self.fails(2, "generate", "--model", model.folder, "--chat", "--messages", path,
                       says=[f'key "{key}" is given twice', "x.json"])
        path.write_text('[{"name": "f", "parameters": {"x": 1, "x": 2}}]')
        self.fails(2, "generate", "--model", model.folder, "--chat", "--prompt", "a", "--tools",
                   path, says=['key "x" is given twice'])
        self.fails(2, "generate", "--model", model.folder, "--chat", "--prompt", "a",
                   "--template-arg", 'v={"a": 1, "a": 2}',
                   says=['key "a" is given twice', "--template-arg v"])
        rows = self.folder / "rows.jsonl"
        rows.write_text('{"question": "1+1?", "answer": "#### 2"}\n{"question": "1+2?", "answer": "#### 3", "answer": "#### 4"}\n')
        options = [QUICKSTART, "data.env=gsm8k", f"data.train_files=[{rows}]", f"data.val_files=[{rows}]", "sft.total_training_steps=0",
                   f"run_dir={self.folder}/r", "data.max_prompt_length=8", "data.train_batch_size=1"]
        self.fails(2, "train", *options, says=['rows.jsonl:2: key "answer" is given twice'])


class Advice(Case):
    def test_what_refuses_a_used_folder_can_be_followed(self):
        run_dir = self.folder / "run"
        self.ok("train", QUICKSTART, *SHORT, f"run_dir={run_dir}")
        other = [*SHORT, "seed=7"]
        text = self.fails(2, "train", QUICKSTART, *other, f"run_dir={run_dir}",
                          "trainer.resume=off").stderr
        self.assertIn(f"remove the whole folder {run_dir}", text)
        self.assertIn("if it is this experiment", text)
        shutil.rmtree(run_dir)
        self.ok("train", QUICKSTART, *other, f"run_dir={run_dir}", "trainer.resume=off")
        # With trainer.resume=PATH another run_dir would begin at PATH as well.
        again = [*SHORT, "seed=7", f"trainer.resume={run_dir}", f"run_dir={self.folder}/b"]
        for key in ("trainer.total_training_steps=2", "sft.total_training_steps=9"):
            text = self.fails(2, "train", QUICKSTART, *again, key).stderr
            self.assertIn("give another trainer.resume", text)
            self.assertNotIn("another run_dir", text)
            self.assertIn(
                "another run_dir",
                self.fails(2, "train", QUICKSTART, *other, key, f"run_dir={run_dir}").stderr)

    def test_batch_advice_can_be_followed(self):
        def refusal(*keys, ranks):
            return run("config", QUICKSTART, "--ranks", ranks, *keys).stderr.splitlines()[-1]
        for ranks in (1, 2, 4, 8):
            for prompts in (1, 3, 8, 12, 14):
                for mini in (1, 3, 4, 5, 20):
                    keys = [f"data.train_batch_size={prompts}", f"actor.ppo_mini_batch_size={mini}"]
                    result = run("config", QUICKSTART, "--ranks", ranks, *keys)
                    if "set it to" not in result.stderr:
                        continue
                    better = result.stderr.split("set it to ")[1].split(",")[0]
                    self.ok("config", QUICKSTART, "--ranks", ranks, keys[0],
                            f"actor.ppo_mini_batch_size={better}")
                    more = result.stderr.split("train_batch_size to ")[1].split()[0]
                    self.ok("config", QUICKSTART, "--ranks", ranks, f"data.train_batch_size={more}",
                            keys[1])
        self.assertNotIn("raise cluster.gradient_shards", refusal("cluster.learners=3", ranks=4))
        self.assertIn("raise cluster.gradient_shards",
                      refusal("cluster.learners=4", "cluster.gradient_shards=2", ranks=4))


class Ranks(Case):
    def test_bench_compares_options_between_ranks(self):
        model = SOURCE / "experiments/quickstart_model"
        shell = self.folder / "bench.sh"
        shell.write_text(f'#!/bin/sh\nexec {command()[0]} bench train --model {model} --batch $((2 + OMPI_COMM_WORLD_RANK)) --seq-len 8 --repeats 1\n')
        shell.chmod(0o755)
        result = subprocess.run(
            ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2", shell], env=environment(),
            text=True, capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--batch", result.stderr)
        self.assertRegex(result.stderr, "rank 1")
        result = self.fails(2, "bench", "train", "--model", model, "--seq-len", "8", ranks=3,
                            says=["power of two"])

    def test_a_rank_that_fails_leaves_a_status(self):
        for fault in ("learner.update:error@3,rank=1", "learner.update:error@3,rank=0"):
            run_dir = self.folder / fault[-1]
            result = subprocess.run(
                command("train", QUICKSTART, *SHORT, f"run_dir={run_dir}", ranks=2), text=True,
                capture_output=True, env=dict(environment(), ORRERY_FAULT=fault), timeout=120)
            self.assertNotEqual(result.returncode, 0)
            status = json.loads((run_dir / "status.json").read_text())
            self.assertEqual((status["state"], status["exit_code"]), ("failed", 1), fault)
            self.assertIn("learner.update", status["error"])
            self.ok("train", QUICKSTART, *SHORT, f"run_dir={run_dir}")
            status = json.loads((run_dir / "status.json").read_text())
            self.assertEqual((status["state"], status["error"]), ("done", None))

    def test_a_refused_second_run_leaves_the_first_ones_status(self):
        run_dir = self.folder / "run"
        log = open(self.folder / "log.txt", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            command("train", QUICKSTART, *SHORT, f"run_dir={run_dir}",
                    "trainer.total_training_steps=100000"), stdout=log, stderr=log,
            env=environment())
        self.addCleanup(process.kill)
        self.wait_for(run_dir / "checkpoints/step_000006", process)
        result = self.fails(1, "train", QUICKSTART, *SHORT, f"run_dir={run_dir}",
                            says=["choose another folder"])
        self.assertNotIn("flight recorder", result.stderr)
        self.assertEqual(json.loads((run_dir / "status.json").read_text())["state"], "running")
        process.kill()
        process.wait()


if __name__ == "__main__":
    unittest.main()
