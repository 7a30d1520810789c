"""SFT on rows of one's own: what is learned of them, weights, the loss on held-out rows, resuming,
and every bad row."""
import json
import subprocess
import unittest

from harness import SOURCE, Case, ScriptedModel, command, environment, metrics

TEMPLATE = ("{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<end>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}")
# Prints a thought in the last turn only, as Qwen 3's does.
FORGETS = ("{% for m in messages %}{{ '[' + m.role + ']' + ('(so)' if loop.last and m.role == 'assistant' else '') + m.content + '<end>' }}"
           "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}")


def ask(text):
    return {"role": "user", "content": text}


def say(text, **more):
    return {"role": "assistant", "content": text, **more}


def pair(prompt, response, **more):
    return {"prompt": prompt, "response": response, **more}


class SftCase(Case):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.write_model(TEMPLATE)

    def write_model(self, template, **more):
        model = ScriptedModel(self.model, special=("<s>", "<end>"))
        model.say_all("\n", "<end>")
        model.write(bos_token="<s>", eos_token="<end>", chat_template=template, **more)

    def rows(self, name, *rows):
        path = self.folder / name
        path.write_text("".join(
            (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    def options(self, *more, name="run", chat=True):
        config = self.folder / "config.yaml"
        config.write_text(f"model: {{path: {self.model}, from_scratch: true}}\n"
                          f"data: {{apply_chat_template: {'true' if chat else 'false'}}}\n"
                          "sft: {total_training_steps: 4, train_batch_size: 4, optim: {lr: 1e-2, weight_decay: 0}}\n"
                          "trainer: {total_training_steps: 0, tensorboard: false, save_freq: 0}\n"
                          "cluster: {threads: 1}\n")
        return [config, f"run_dir={self.folder / name}", *more]

    def train(self, *more, name="run", chat=True, ranks=0):
        """(lines of metrics.jsonl, hash of the last checkpoint, what was printed)"""
        result = self.ok("train", *self.options(*more, name=name, chat=chat), ranks=ranks)
        return metrics(self.folder / name), self.checkpoint_hash(
            self.folder / name)[1], result.stdout + result.stderr


class Learns(SftCase):
    def test_prompt_and_response(self):
        file = self.rows("a.jsonl",
                         *(pair(f"{a}+{b}=", str(a + b)) for a in range(4) for b in range(4)))
        lines, ending, text = self.train(f"sft.train_files=[{file}]", "sft.train_batch_size=16",
                                         "sft.total_training_steps=20", chat=False)
        self.assertLess(lines[-1]["train/loss"], lines[0]["train/loss"] / 2)
        # 16 answers of one digit and what ends each; a prompt has four bytes.
        self.assertEqual(
            {(line["train/loss_tokens"], line["perf/total_num_tokens"]) for line in lines},
            {(32, 96)})
        self.assertIn("16 rows of 96 tokens, 32 of them learned; an epoch is 1 steps of 16 rows, 20 steps are 20 epochs", text)
        # TRL's names and shapes are the same, and so is a text that ends as it should already.
        other = self.rows("b.jsonl", *({"prompt": f"{a}+{b}=", "completion": [say(f"{a + b}<end>")], "messages": None, "id": 1}
                                       for a in range(4) for b in range(4)))
        self.assertEqual(
            ending,
            self.train(f"sft.train_files=[{other}]", "sft.train_batch_size=16",
                       "sft.total_training_steps=20", name="b", chat=False)[1])

    def test_as_demonstrations_are(self):
        """The same bits as the environment's teacher gives, with and without a chat template."""
        questions = [(f"{a}+1?", f"so #### {a + 1}") for a in range(6)]
        env = self.rows("env.jsonl", *({"question": q, "answer": a} for q, a in questions))
        own = self.rows("own.jsonl", *(pair(q, a) for q, a in questions))
        chat = self.rows("chat.jsonl", *({"messages": [ask(q), say(a)]} for q, a in questions))
        for template in (False, True):
            taught = self.train("data.env=gsm8k", f"data.train_files=[{env}]",
                                name=f"env{template}", chat=template)[1]
            self.assertEqual(
                taught,
                self.train(f"sft.train_files=[{own}]", name=f"own{template}", chat=template)[1])
        self.assertEqual(taught, self.train(f"sft.train_files=[{chat}]", name="chat")[1])
        self.assertEqual(taught, self.train(f"sft.train_files=[{chat}]", name="two", ranks=2)[1])

    def test_conversations(self):
        file = self.rows("a.jsonl", *({"messages": [{"role": "system", "content": "s"}, ask(f"{a}?"), say(f"{a}!"), ask("+1"), say(str(a + 1)),
                                                    ask("thanks")]} for a in range(8)))
        lines, _, text = self.train(f"sft.train_files=[{file}]", "sft.train_batch_size=8",
                                    "sft.total_training_steps=30")
        self.assertLess(lines[-1]["train/loss"], lines[0]["train/loss"] / 2)
        # "0!", "1" and what ends each are learned; the user's thanks are left out.
        self.assertEqual({line["train/loss_tokens"] for line in lines}, {8 * 5})
        whole = len("[system]s|[user]0?|[assistant]0!|[user]+1|[assistant]1|")
        self.assertEqual({line["perf/total_num_tokens"] for line in lines}, {8 * whole})
        self.assertIn(f"8 rows of {8 * whole} tokens, 40 of them learned", text)
        # Cut inside of what is not learned, that goes too.
        lines, _, text = self.train(f"sft.train_files=[{file}]", "sft.max_length=40", name="cut")
        self.assertEqual(
            {(line["train/loss_tokens"], line["perf/total_num_tokens"]) for line in lines},
            {(4 * 3, 4 * len("[system]s|[user]0?|[assistant]0!|"))})
        self.assertIn(f"8 of 8 rows of sft.train_files are cut to sft.max_length 40 tokens and lose their end; the first: {file}:1 with", text)

    def test_a_template_that_forgets(self):
        self.write_model(FORGETS)
        twice = {"messages": [ask("a"), say("b"), ask("c"), say("d")]}
        file = self.rows("a.jsonl", {"messages": [ask("a"), say("b")]}, twice)
        self.fails(2, "train", *self.options(f"sft.train_files=[{file}]"),
                   says=[f"{file}:2: ", "prints an earlier turn otherwise", "give each a row of its own", "on_error: skip"])
        _, _, text = self.train(f"sft.train_files=[{file}]", "data.on_error=skip")
        self.assertIn("1 of 2 rows of sft.train_files left out", text)
        split = self.rows("b.jsonl", pair([ask("a")], "b"),
                          pair([ask("a"), say("b"), ask("c")], "d"))
        lines, _, _ = self.train(f"sft.train_files=[{split}]", "sft.train_batch_size=2",
                                 name="split")
        self.assertEqual(lines[0]["train/loss_tokens"], 2 * len("(so)b|"))

    def test_tools_and_the_prompt_as_in_rl(self):
        self.write_model(
            "{% if tools %}{{ '{' + tools[0].function.name + '}' }}{% endif %}" + TEMPLATE.replace(
                "m.content",
                "(m.content or '') + (m.tool_calls[0].function.name if m.tool_calls else '')"))
        tool = {"type": "function", "function": {"name": "look"}}
        file = self.rows("a.jsonl", {"tools": [tool], "messages": [ask("a"), {"role": "assistant", "content": None, "tool_calls": [tool]},
                                                                   {"role": "tool", "content": "x"}, say("b")]})
        lines, _, _ = self.train(f"sft.train_files=[{file}]", "sft.train_batch_size=1",
                                 "data.system_prompt=s")
        self.assertEqual(lines[0]["train/loss_tokens"], len("look|b|"))
        self.assertEqual(lines[0]["perf/total_num_tokens"],
                         len("{look}[system]s|[user]a|[assistant]look|[tool]x|[assistant]b|"))
        plain = self.rows("b.jsonl", pair("a", "b"))
        lines, _, _ = self.train(f"sft.train_files=[{plain}]", "sft.train_batch_size=1",
                                 "data.prompt_template=Q: {} A:", chat=False, name="b")
        self.assertEqual(lines[0]["perf/total_num_tokens"], len("Q: a A:b|"))

    def test_the_example(self):
        data = SOURCE / "examples/sft.jsonl"
        result = self.ok("train", SOURCE / "examples/sft.yaml", f"model.path={self.model}",
                         "model.from_scratch=true", "sft.total_training_steps=10",
                         "sft.optim.lr=1e-2", "cluster.threads=1", f"run_dir={self.folder / 'run'}")
        self.assertIn(f"{len(data.read_text().splitlines())} rows", result.stderr)
        losses = [line["val/loss"] for line in metrics(self.folder / "run") if "val/loss" in line]
        self.assertEqual(len(losses), 2)
        self.assertLess(losses[1], losses[0])
        self.check_tensorboard(self.folder / "run")


class Weights(SftCase):
    def test_only_ratios_matter(self):
        plain = [pair(f"{a}?", "x" * (a + 1)) for a in range(6)]
        endings = {}
        for name, weights in (("none", [None] * 6), ("one", [1] * 6), ("two", [2.0] * 6),
                              ("huge", [1e308] * 6), ("tiny", [5e-324] * 6),
                              ("mixed", [1, 2, 0.5, 1, 3, 1]), ("twice mixed", [2, 4, 1, 2, 6, 2])):
            file = self.rows(f"{name}.jsonl", *(row if weight is None else {**row, "weight": weight} for row, weight in zip(plain, weights)))
            lines, endings[name], _ = self.train(f"sft.train_files=[{file}]", name=name)
            self.assertNotIn(None, [value for line in lines for value in line.values()], name)
        self.assertEqual({endings[name] for name in ("none", "one", "two", "huge", "tiny")},
                         {endings["none"]})
        self.assertEqual(endings["mixed"], endings["twice mixed"])
        self.assertNotEqual(endings["mixed"], endings["none"])

    def test_the_loss_is_a_weighted_mean_over_tokens(self):
        rows = [pair("a", "xy"), pair("b", "xyzxyz"), pair("c", "q")]
        weights = [0.25, 3, 0]
        options = ["sft.optim.lr=0", "sft.total_training_steps=1", "trainer.test_freq=-1"]
        losses = []
        for index, row in enumerate(rows):
            file = self.rows(f"{index}.jsonl", row)
            lines, _, _ = self.train(f"sft.train_files=[{file}]", f"sft.val_files=[{file}]",
                                     *options, name=str(index))
            self.assertEqual(lines[0]["val/loss"], lines[1]["val/loss"])
            self.assertAlmostEqual(lines[1]["train/loss"], lines[0]["val/loss"], places=5)
            losses.append(lines[0]["val/loss"])
        counts = [len(row["response"]) + 1 for row in rows]
        expected = (sum(w * n * loss for w, n, loss in zip(weights, counts, losses)) /
                    sum(w * n for w, n in zip(weights, counts)))
        file = self.rows("all.jsonl",
                         *({**row, "weight": weight} for row, weight in zip(rows, weights)))
        for ranks in (0, 2):
            lines, _, _ = self.train(f"sft.train_files=[{file}]", f"sft.val_files=[{file}]",
                                     *options, "sft.train_batch_size=3", name=f"all{ranks}",
                                     ranks=ranks)
            self.assertAlmostEqual(lines[0]["val/loss"], expected, places=9)
            self.assertAlmostEqual(lines[1]["train/loss"], expected, places=5)
            self.assertEqual(lines[1]["train/loss_tokens"], counts[0] + counts[1])

    def test_a_batch_of_weight_0(self):
        file = self.rows("a.jsonl", pair("a", "x"), *(pair(c, "y", weight=0) for c in "bcdefgh"))
        lines, _, text = self.train(f"sft.train_files=[{file}]", "sft.train_batch_size=2",
                                    "sft.total_training_steps=8", ranks=2)
        self.assertEqual(sorted(line["train/loss_tokens"] for line in lines), [0] * 6 + [2] * 2)
        self.assertNotIn(None, [value for line in lines for value in line.values()])
        self.assertEqual(text.count("have weight 0: nothing was learned from it"), 6)
        self.assertEqual([line["train/grad_norm"] for line in lines].count(0), 6)
        file = self.rows("b.jsonl", *(pair(c, "y", weight=0) for c in "bc"))
        self.fails(2, "train", *self.options(f"sft.train_files=[{file}]", name="b"),
                   says=["every row of sft.train_files has \"weight\" 0"])


class Validation(SftCase):
    def files(self):
        train = self.rows(
            "train.jsonl",
            *(pair(f"{a}{b}", f"{b}{a}" * (1 + a)) for a in range(4) for b in range(4)))
        val = self.rows("val.jsonl", *({"messages": [ask(f"{a}{a}"), say(f"{a}" * a), ask("?"), say("!")], "weight": a} for a in range(1, 8)))
        return [f"sft.train_files=[{train}]", f"sft.val_files=[{val}]", "sft.total_training_steps=5"]

    @staticmethod
    def losses(lines):
        return {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}

    def test_when_and_the_same_on_any_layout(self):
        files = self.files()
        lines, ending, text = self.train(*files, "trainer.test_freq=2", "trainer.tensorboard=true")
        losses = self.losses(lines)
        self.assertEqual(list(losses), [0, 2, 4, 5])
        self.assertEqual([(line["step"], line["stage"]) for line in lines],
                         [(step, "sft") for step in range(6)])
        self.assertEqual(
            set(lines[0]) - {"step", "stage", "stage_step", "time"},
            {"val/loss", "timing_s/testing"})
        for step, loss in losses.items():
            self.assertIn(f"validation at step {step} (sft {step}/5) | loss {loss:.4f} | 7 rows\n",
                          text)
        self.assertRegex(text, r"step 4 \(sft 4/5\) \| loss \S+ \| val loss " + f"{losses[4]:.4f}")
        self.check_tensorboard(self.folder / "run")
        for name, ranks, more in (("ranks", 2, []), ("split", 2, ["cluster.placement=split"]),
                                  ("budget", 0, ["actor.ppo_max_token_len_per_gpu=20"]),
                                  ("both", 2,
                                   ["actor.ppo_max_token_len_per_gpu=1", "cluster.threads=2"])):
            lines, other, _ = self.train(*files, "trainer.test_freq=2", *more, name=name,
                                         ranks=ranks)
            self.assertEqual(self.losses(lines), losses, name)
            self.assertEqual(other, ending, name)
        lines, other, _ = self.train(*files, "trainer.test_freq=-1", name="ends")
        self.assertEqual(self.losses(lines), {0: losses[0], 5: losses[5]})
        self.assertEqual(other, ending)
        # Measuring changes nothing.
        self.assertEqual(ending, self.train(files[0], files[2], name="none")[1])

    def test_a_kill_changes_nothing(self):
        files = [*self.files(), "trainer.test_freq=2", "trainer.save_freq=2"]
        lines, ending, _ = self.train(*files)

        def without_time(rows):
            return [{key: value for key, value in row.items() if key != "time" and not key.startswith(("timing_s", "perf"))} for row in rows]

        for point in ("learner.update:crash@1", "learner.update:crash@4", "metrics.write:torn@1",
                      "metrics.write:torn@6"):
            name = point.replace(":", "_")
            words = command("train", *self.options(*files, name=name), ranks=2)
            killed = subprocess.run(words, env=environment() | {"ORRERY_FAULT": point},
                                    capture_output=True, text=True, timeout=300)
            self.assertNotEqual(killed.returncode, 0, point)
            again, other, _ = self.train(*files, name=name)
            self.assertEqual(other, ending, point)
            self.assertEqual(without_time(again), without_time(lines), point)

    def test_sft_then_rl(self):
        """Each stage's held-out data are measured, and the lines are told apart."""
        model = SOURCE / "experiments/quickstart.yaml"
        train = self.rows("train.jsonl",
                          *(pair(f"{a}+{b}=", str(a + b)) for a in range(3) for b in range(3)))
        self.ok("train", model, f"run_dir={self.folder / 'run'}", f"sft.train_files=[{train}]",
                f"sft.val_files=[{train}]", "sft.total_training_steps=2", "sft.train_batch_size=4",
                "trainer.total_training_steps=1", "trainer.test_freq=1", "data.train_batch_size=2",
                "rollout.n=2", "data.val_size=4", "cluster.threads=1")
        self.assertEqual([(line["step"], line["stage"]) for line in metrics(self.folder / "run")],
                         [(0, "sft"), (1, "sft"), (2, "sft"), (2, "val"), (3, "val"), (3, "grpo")])


class Resumes(SftCase):
    def test_what_files_hold(self):
        file = self.rows("a.jsonl", *(pair(c, c) for c in "abcd"))
        val = self.rows("v.jsonl", pair("a", "b"))
        options = [f"sft.train_files=[{file}]", f"sft.val_files=[{val}]", "trainer.test_freq=-1", "sft.total_training_steps=2"]
        self.train(*options)
        moved = self.folder / "moved.jsonl"
        file.rename(moved)
        more = [f"sft.train_files=[{moved}]", *options[1:3], "sft.total_training_steps=3"]
        text = self.train(*more)[2]
        self.assertIn("resumed from", text)
        self.rows("v.jsonl", pair("a", "c"))
        more[-1] = "sft.total_training_steps=4"
        text = self.train(*more)[2]
        self.assertRegex(
            text,
            r"warn.*the run goes on with the new values: .*sft\.val_files\[0\]: \S+v\.jsonl held")
        self.rows("moved.jsonl", *(pair(c, c) for c in "abce"))
        more[-1] = "sft.total_training_steps=5"
        self.fails(2, "train", *self.options(*more),
                   says=["another experiment", "sft.train_files[0]"])

    def test_an_older_default_rate(self):
        file = self.rows("a.jsonl", *(pair(c, c) for c in "abcd"))
        config = self.folder / "plain.yaml"
        config.write_text(f"model: {{path: {self.model}, from_scratch: true}}\nsft: {{total_training_steps: 2, train_files: [{file}], train_batch_size: 4}}\n"
                          "trainer: {total_training_steps: 0, tensorboard: false, save_freq: 1}\ncluster: {threads: 1}\n")
        words = ["train", config, f"run_dir={self.folder / 'run'}"]
        self.assertRegex(
            self.ok("config", config).stdout,
            r"(?s)sft:.*optim:\n    lr: 1e-05\n.*actor:.*optim:\n    lr: 1e-06\n")
        self.ok(*words, "sft.total_training_steps=2", "sft.optim.lr=1e-6")
        result = self.ok(*words, "sft.total_training_steps=3")
        self.assertIn("sft.optim.lr: 1e-06 -> 1e-05", result.stderr)
        self.assertIn("lr: 1e-05", (self.folder / "run/config.yaml").read_text())
        # Where SFT is over nobody is refused for a value that is not used any more.
        words[-1] = f"run_dir={self.folder / 'over'}"
        self.ok(*words, "sft.total_training_steps=2", "sft.optim.lr=1e-6")
        self.assertNotIn("sft.optim.lr", self.ok(*words, "sft.total_training_steps=2").stderr)


class BadRows(SftCase):
    def refused(self, row, *says, chat=True, more=()):
        # The two rows before are good; a skipped row is left out and counted.
        good = pair("a", "b")
        file = self.rows("rows.jsonl", good, good, row)
        result = self.fails(2, "train", *self.options(f"sft.train_files=[{file}]", *more,
                                                      chat=chat), says=[f"{file}:3: ", *says])
        errors = [line for line in result.stderr.splitlines() if line.startswith("orrery: ")]
        self.assertEqual(len(errors), 1, result.stderr)
        return errors[0]

    def test_each_is_one_error_with_its_line(self):
        for row, says in (
                ({"prompt": "a"}, 'a "prompt" without a "response"'),
                ({"response": "a"}, 'a "response" without a "prompt"'),
                ({"completion": "a"}, 'a "completion" without a "prompt"'),
                ({}, "no keys"),
                ({"instruction": "a", "output": "b"}, '"instruction", "output"'),
                ({"conversations": [{"from": "human", "value": "a"}]}, '"conversations"'),
                ({"prompt": None, "response": "a"}, 'without a "prompt"'),
                (pair(1, "a"), '"prompt" is number'),
                (pair({"role": "user"}, "a"), '"prompt" is object'),
                (pair([], "a"), "no messages"),
                (pair(["a"], "a"), "not an object"),
                (pair([{"role": "robot", "content": "a"}], "a"), 'the role "robot"'),
                (pair("a", 5), '"response" is number'),
                (pair("a", ""), '"response" has no text'),
                (pair("a", " \n"), '"response" has no text'),
                (pair("a", []), '"response" is a list of 0 messages'),
                (pair("a", [say("b"), say("c")]), '"response" is a list of 2 messages'),
                (pair("a", [ask("b")]), "another role than the assistant"),
                (pair("a", say("")), "no text"),
                (pair("a", "b", completion="b"), 'both "response" and "completion"'),
                (pair("a", "b", messages=[ask("a"), say("b")]), 'both "messages" and "response"'),
                ({"messages": "a"}, "no list of messages"),
                ({"messages": []}, "no messages"),
                ({"messages": [ask("a")]}, "none of the messages is the assistant's"),
                ({"messages": [say("a")]}, "the first message is the assistant's"),
                ({"messages": [ask("a"), say("")]}, "message 2 is the assistant's and has no text"),
                ({"messages": [ask("a"), say("  "), ask("b"), say("c")]}, "message 2 is the assistant's and has no text"),
                ({"messages": [ask("a"), {"role": "assistant"}]}, "has no text"),
                ({"messages": [ask("a"), {"role": "assistant", "content": 3}]}, "content"),
                ({"messages": [ask("a"), say("", tool_calls=[])]}, "has no text"),
                ({"messages": [ask("a"), say("b", weight=0), ask("c"), say("d", weight=1)]}, 'message 2 has a "weight" of its own'),
                ({"messages": [{"role": "narrator", "content": "a"}, say("b")]}, 'the role "narrator"'),
                ({"messages": [{"content": "a"}, say("b")]}, '"role"'),
                ({"messages": [ask("a"), say("b")], "tools": {}}, '"tools" is object'),
                (pair("a", "b", weight=-1), '"weight" is -1'),
                (pair("a", "b", weight="1"), '"weight" is string'),
                (pair("a", "b", weight=None), '"weight" is null'),
                (pair("a", "b", weight=True), '"weight" is boolean'),
                (pair("a", "b", weight=[1]), '"weight" is array'),
                ('{"prompt": "a", "response": "b", "weight": NaN}', "not valid JSON"),
                ('{"prompt": "a", "response": "b", "weight": Infinity}', "not valid JSON"),
                ('{"prompt": "a", "response": "b"', "not valid JSON"),
                ('["a"]', "not a JSON object"),
                (pair("a", "b<end>c"), "<end> inside"),
                ({"messages": [ask("a"), say("b<end>c"), ask("a"), say("b")]}, "<end> inside"),
                ({"messages": [ask("a"), say("b", reasoning_content="x<end>")]}, "<end> inside"),
                (pair("a" * 600, "b"), "leaves no room for a response in sft.max_length 512"),
                ({"messages": [ask("a" * 600), say("b"), ask("a"), say("b")]}, "leaves no room")):
            with self.subTest(row=str(row)[:80]):
                self.refused(row, says)

    def test_without_a_template(self):
        self.refused({"messages": [ask("a"), say("b")]}, "set data.apply_chat_template: true",
                     chat=False, more=["data.on_error=skip"])
        self.refused(pair("a", say("", tool_calls=[{"function": {"name": "f"}}])),
                     "set data.apply_chat_template: true", chat=False)
        self.refused(pair("a", "b<end>c"), "<end> inside", chat=False)

    def test_skip_leaves_them_out(self):
        file = self.rows("rows.jsonl", pair("a", "b"), {"prompt": "a"}, pair("a", "b", weight=-1),
                         pair("a" * 600, "b"), pair("c", "d<end>e"))
        lines, _, text = self.train(f"sft.train_files=[{file}]", "data.on_error=skip")
        self.assertIn("2 of 5 rows skipped, the first because", text)
        self.assertIn("2 of 3 rows of sft.train_files left out", text)
        self.assertIn("1 rows of", text)
        file = self.rows("rows.jsonl", {"prompt": "a"}, {"prompt": "b"})
        self.fails(2, "train",
                   *self.options(f"sft.train_files=[{file}]", "data.on_error=skip", name="none"),
                   says=["no usable row"])

    def test_files_and_keys(self):
        rows = self.rows("rows.jsonl", pair("a", "b"), pair("c", "d"))
        same = self.rows("rows.txt", pair("a", "b"), "", pair("c", "d"))
        text = self.folder / "text.txt"
        text.write_text('{"not": "one"} object a line\nbut a text<|endoftext|>another')
        train = f"sft.train_files=[{rows}]"
        for words, says in (
                ([f"sft.text_files=[{rows}]"], ["rows.jsonl is JSON", "sft.train_files"]),
                ([f"sft.text_files=[{same}]"], ["rows.txt is JSON", "sft.train_files"]),
                ([train, f"sft.text_files=[{text}]"], ["sft.text_files and sft.train_files are both given"]),
                (["sft.train_files=[no.jsonl]"], ["no.jsonl", "sft.train_files"]),
                ([train, "sft.val_files=[no.jsonl]", "trainer.test_freq=1"], ["no.jsonl", "sft.val_files"]),
                ([f"sft.train_files=[{self.folder}]"], ["is a folder"]),
                ([f"sft.train_files=[{text}]"], ["text.txt:1: not valid JSON"])):
            with self.subTest(words=words):
                self.fails(2, "train", *self.options(*words), says=says)
        self.train(f"sft.text_files=[{text}]", chat=False, name="text")

    def test_longer_than_the_model(self):
        self.write_model(TEMPLATE, context=64)
        long = self.rows("long.jsonl", pair("a", "b" * 100))
        short = self.rows("short.jsonl", pair("a", "b"))
        for words in ([f"sft.train_files=[{long}]"], [f"sft.train_files=[{short}]", f"sft.val_files=[{long}]", "trainer.test_freq=1"]):
            self.fails(2, "train", *self.options(*words),
                       says=["handles 64 positions: lower sft.max_length to 64"])
        # RL's lengths do not matter where there is none.
        self.train(f"sft.train_files=[{short}]")
        self.train(f"sft.train_files=[{long}]", "sft.max_length=64", name="cut")

    def test_no_environment_is_needed(self):
        file = self.rows("rows.jsonl", pair("a", "b"))
        self.train(f"sft.train_files=[{file}]", "data.env=gsm8k")


if __name__ == "__main__":
    unittest.main()
