"""Rows that do not fit, files that are not needed, and what a chat model learns from
demonstrations."""
import json
import unittest

from harness import Case, ScriptedModel, metrics

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def row(question, answer="5"):
    return {"question": question, "answer": f"#### {answer}"}


class DataCase(Case):
    def setUp(self):
        super().setUp()
        model = ScriptedModel(self.folder / "model")
        model.default = "<eos>"
        model.write(eos_token="<eos>")
        self.runs = 0

    def rows(self, name, *rows):
        path = self.folder / name
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return path

    def options(self, *more, train=None, val=None):
        """A config of one step on gsm8k rows, and a run folder of its own."""
        self.runs += 1
        self.run_dir = self.folder / f"run{self.runs}"
        config = self.folder / "config.yaml"
        config.write_text("model: {path: model}\n"
                          "data: {env: gsm8k, train_batch_size: 4, max_prompt_length: 10, max_response_length: 4, shuffle: false}\n"
                          "rollout: {n: 2}\ntrainer: {total_training_steps: 1, tensorboard: false}\ncluster: {threads: 1}\n")
        return [config, f"run_dir={self.run_dir}", *([f"data.train_files=[{train}]"] if train else []),
                *([f"data.val_files=[{val}]"] if val else []), *more]

    def prompts(self, step=1):
        """Of a step's groups, as text."""
        lines = self.ok("rollouts", self.run_dir / f"rollouts/step_{step:06}.h5",
                        "--json").stdout.splitlines()
        return [bytes(json.loads(line)["prompt_tokens"]).decode() for line in lines if line.startswith("{")][::2]


class LongRows(DataCase):
    def setUp(self):
        super().setUp()
        self.mixed = self.rows("mixed.jsonl", row("a"), row("L" * 50), row("b"), row("c"),
                               row("M" * 11), row("0123456789"))

    def test_are_left_out_and_counted(self):
        result = self.ok(
            "train",
            *self.options("data.on_error=skip", "trainer.total_training_steps=2", train=self.mixed))
        self.assertEqual(self.prompts(1), ["a", "b", "c", "0123456789"])
        self.assertEqual(self.prompts(2), ["a", "b", "c", "0123456789"])
        (line,) = [line for line in result.stderr.splitlines() if "left out" in line]
        for text in ("2 of 6 training prompts", "mixed.jsonl:2:", "50 tokens",
                     "data.max_prompt_length 10"):
            self.assertIn(text, line)
        result = self.ok(
            "train", *self.options("data.on_error=skip", "data.train_batch_size=6",
                                   train=self.mixed), ranks=2)
        self.assertEqual(self.prompts(), ["a", "b", "c", "0123456789", "a", "b"],
                         "one epoch follows the other")
        self.assertEqual(result.stderr.count("left out"), 1, "one rank says it")
        self.assertIn("data.train_batch_size is 6 but there are 4 training prompts", result.stderr)

    def test_the_run_is_that_of_the_rows_that_fit(self):
        clean = self.rows("clean.jsonl", row("a"), row("b"), row("c"), row("0123456789"))
        more = ["data.on_error=skip", "data.shuffle=true", "trainer.total_training_steps=3", "sft.total_training_steps=3",
                "sft.train_batch_size=3", "sft.max_length=11", "model.from_scratch=true", "actor.optim.lr=1e-3", "sft.optim.lr=1e-3"]
        hashes = []
        for file in (clean, self.mixed):
            result = self.ok("train", *self.options(*more, train=file))
            hashes.append(self.checkpoint_hash(self.run_dir))
        self.assertEqual(hashes[0], hashes[1])
        self.assertIn(
            "2 of 6 demonstrations left out, the first because: " + str(self.mixed) + ":2: ",
            result.stderr)

    def test_are_refused_before_anything_is_written(self):
        for place in ({"train": self.mixed},
                      {"train": self.rows("ok.jsonl", row("a")), "val": self.mixed}):
            self.fails(2, "train", *self.options("trainer.test_freq=-1" if "val" in place else "trainer.test_freq=0", **place),
                       says=["mixed.jsonl:2: the prompt has 50 tokens, more than data.max_prompt_length 10", "data.on_error: skip"])
            self.assertFalse(self.run_dir.exists())
        # Without validation held-out rows are nobody's trouble.
        self.ok("train",
                *self.options(train=self.rows("ok.jsonl", *map(row, "abcd")), val=self.mixed))
        result = self.fails(2, "train", *self.options("data.on_error=skip", train=self.rows("long.jsonl", row("L" * 20), row("M" * 30))),
                            ranks=2, says=["none of 2 training prompts can be used", "long.jsonl:1", "20 tokens"])
        self.assertEqual(result.stderr.count("none of 2"), 1)

    def test_in_evaluation(self):
        self.fails(2, "eval", *self.options(val=self.mixed),
                   says=["mixed.jsonl:2", "50 tokens", "data.on_error: skip"])
        result = self.ok("eval", *self.options("data.on_error=skip", val=self.mixed), "--json")
        self.assertEqual(json.loads(result.stdout)["prompts"], 4)
        self.assertIn("2 of 6 held-out prompts left out", result.stderr)
        result = self.ok("eval",
                         *self.options("data.on_error=skip", "data.val_size=2", val=self.mixed),
                         "--json")
        self.assertEqual(json.loads(result.stdout)["prompts"], 2)
        self.ok("eval", *self.options("data.val_size=1", val=self.mixed),
                "--json")  # the long one is not needed

    def test_in_supervised_training(self):
        sft = ["trainer.total_training_steps=0", "sft.total_training_steps=1", "sft.train_batch_size=2", "sft.max_length=20"]
        self.fails(2, "train", *self.options(*sft, train=self.mixed), ranks=2,
                   says=["mixed.jsonl:2: the prompt has 50 tokens and leaves no room for a response in sft.max_length 20"])
        result = self.ok("train", *self.options(*sft, "data.on_error=skip", train=self.mixed),
                         ranks=2)
        self.assertEqual(result.stderr.count("1 of 6 demonstrations left out"), 1)
        long_answer = self.rows("answers.jsonl", row("a"), row("b", "5" * 40), row("c"))
        result = self.ok("train", *self.options(*sft, train=long_answer))
        self.assertIn(f"1 of 3 demonstrations are cut to sft.max_length 20 tokens and lose their end; the first: {long_answer}:2 with 47",
                      result.stderr)
        text = self.folder / "text.txt"
        text.write_text("short<|endoftext|>\n" + "long" * 20)
        result = self.ok("train", *self.options(*sft, f"sft.text_files=[{text}]", train=self.mixed))
        self.assertIn("1 of 2 documents", result.stderr)
        self.assertIn("text.txt:2 with 81", result.stderr)
        teacherless = self.rows(
            "verl.jsonl", row("a"),
            {"prompt": "b", "data_source": "gsm8k", "reward_model": {"ground_truth": "1"}})
        self.fails(2, "train", *self.options(*sft, train=teacherless),
                   says=["verl.jsonl:2: there is no demonstration"])
        result = self.ok("train", *self.options(*sft, "data.on_error=skip", train=teacherless))
        self.assertIn("1 of 2 demonstrations left out", result.stderr)

    def test_a_row_that_the_chat_template_refuses_is_one_of_them(self):
        model = ScriptedModel(self.folder / "model")
        model.default = "<eos>"
        model.write(
            eos_token="<eos>", chat_template=
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}"
            "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}")
        system = {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}], "data_source": "gsm8k",
                  "reward_model": {"ground_truth": "1"}}
        rows = self.rows("chat.jsonl", row("a"), system, row("b"))
        more = ["data.apply_chat_template=true", "data.train_batch_size=2"]
        self.fails(2, "train", *self.options(*more, train=rows),
                   says=["chat.jsonl:2: ", "no system message", "data.on_error: skip"])
        result = self.ok("train", *self.options(*more, "data.on_error=skip", train=rows))
        self.assertEqual(self.prompts(), ["a", "b"])
        self.assertIn("1 of 3 training prompts left out", result.stderr)


class Files(DataCase):
    def test_evaluation_needs_held_out_files_alone(self):
        rows = self.rows("val.jsonl", row("a"), row("b"))
        # Neither training files nor what only training needs to be right.
        for more in ([], ["data.train_files=[/no/such.jsonl]"],
                     ["rollout.n=1", "rollout.temperature=0",
                      "actor.ppo_mini_batch_size=3"], ["sft.total_training_steps=5"]):
            self.assertEqual(
                json.loads(self.ok("eval", *self.options(*more, val=rows),
                                   "--json").stdout)["prompts"], 2, more)
        self.assertEqual(json.loads(self.ok("eval", *self.options("data.train_batch_size=1", val=rows), "--json", ranks=2).stdout)["prompts"], 2)
        self.fails(2, "eval", *self.options(train=rows), says=["data.val_files"])

    def test_training_needs_held_out_files_where_it_validates(self):
        rows = self.rows("train.jsonl", *map(row, "abcd"))
        self.ok("train", *self.options(train=rows))
        self.fails(2, "train", *self.options("trainer.test_freq=1", train=rows),
                   says=["trainer.test_freq is 1", "data.val_files"])
        self.ok("train", *self.options("trainer.test_freq=1", train=rows, val=rows))
        self.assertEqual(sum(line["stage"] == "val" for line in metrics(self.run_dir)), 2)
        self.fails(2, "train", *self.options(val=rows), says=["data.train_files"])


class ChatDemonstrations(DataCase):
    def learned(self, chat_template, stops, steps=60):
        """The ids that a small model generates after it has learned one demonstration by heart."""
        model = ScriptedModel(self.folder / "model",
                              special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
        model.write(eos_token="<|endoftext|>", chat_template=chat_template,
                    generation_config={"eos_token_id": [model.id(s) for s in stops]}, config=small)
        self.ok("train", *self.options("model.from_scratch=true", "data.apply_chat_template=true", "trainer.total_training_steps=0",
                                       f"sft.total_training_steps={steps}", "sft.train_batch_size=8", "sft.optim.lr=1e-2",
                                       train=self.rows("one.jsonl", row("1+1?", "2"))))
        exported = self.folder / f"hf{self.runs}"
        self.ok("ckpt", "export", self.run_dir / f"checkpoints/step_{steps:06}", exported,
                "--format", "hf")
        result = self.ok("generate", "--model", exported, "--chat", "--prompt", "1+1?",
                         "--temperature", "0", "--max-new-tokens", "40", "--json")
        return model, json.loads(result.stdout)["ids"]

    def test_end_as_the_template_does(self):
        model, ids = self.learned(CHATML, ["<|endoftext|>", "<|im_end|>"])
        self.assertEqual(ids, [*b"#### 2", model.id("<|im_end|>")])

    def test_begin_as_the_template_does(self):
        thinking = CHATML.replace(
            "m.content +",
            "(('<think>\\n\\n</think>\\n\\n' if m.role == 'assistant' else '') + m.content) +")
        model, ids = self.learned(thinking, ["<|im_end|>"], steps=100)
        self.assertEqual(ids, [*b"<think>\n\n</think>\n\n#### 2", model.id("<|im_end|>")])

    def test_a_template_without_a_known_response_is_named(self):
        model = ScriptedModel(self.folder / "model")
        model.write(
            eos_token="<eos>", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}<think>{% endif %}")
        options = self.options("data.apply_chat_template=true", "trainer.total_training_steps=0",
                               "sft.total_training_steps=1",
                               train=self.rows("one.jsonl", row("1+1?", "2")))
        self.fails(2, "train", *options,
                   says=["one.jsonl:1: ", "tokenizer_config.json", "<think>", "#### 2"])

    def test_an_end_inside_an_answer_is_refused(self):
        model = ScriptedModel(self.folder / "model", special=["<eos>", "<|im_end|>"])
        model.write(eos_token="<eos>", chat_template=CHATML,
                    generation_config={"eos_token_id": 257})
        rows = [{"question": "q", "answer": f"{text} #### 2"} for text in ("a", "b<|im_end|>c", "<eos>")]
        rows.append({"question": "q",
                     "answer": "d #### 2<|im_end|>\n"})  # at its end it is harmless
        options = ("sft.total_training_steps=1", "sft.train_batch_size=4",
                   "trainer.total_training_steps=0")
        for chat in ("true", "false"):
            train = self.options(*options, f"data.apply_chat_template={chat}",
                                 train=self.rows("ends.jsonl", *rows))
            self.fails(2, "train", *train, says=["ends.jsonl:2: ", "<|im_end|> inside"])
            self.assertIn("2 of 4 demonstrations left out",
                          self.ok("train", *train, "data.on_error=skip").stderr)

    def test_a_template_that_is_not_applied_is_said(self):
        ScriptedModel(self.folder / "model").write(eos_token="<eos>", chat_template=CHATML)
        train = self.rows("one.jsonl", row("q"))
        self.assertIn("data.apply_chat_template is false",
                      self.ok("train", *self.options(train=train)).stderr)
        self.assertNotIn("apply_chat_template", self.ok("train", *self.options("data.apply_chat_template=true", "data.max_prompt_length=99",
                                                                               train=train)).stderr)


if __name__ == "__main__":
    unittest.main()
