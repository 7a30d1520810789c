#!/usr/bin/env python3
"""What a run pays for answers that a scripted model gives: through tokenizer, engine, rows and
reward rules."""
import json
import pathlib
import tempfile
import unittest

from harness import Case, ScriptedModel, metrics


class Rewards(Case):
    def rewards(self, cases, *options):
        """cases: (response, row without its prompt). The reward of each response."""
        responses = list(dict.fromkeys(response for response, _ in cases))
        prompts = [f"<q{index}>" for index in range(len(cases))]
        model = ScriptedModel(self.folder / "model", special=["<eos>"],
                              words=[*prompts, *responses])
        for prompt, (response, _) in zip(prompts, cases):
            model.say(prompt, response)
        model.default = "<eos>"
        model.write(eos_token="<eos>")
        self.write_rows("rows.jsonl",
                        [{"prompt": prompt, **row} for prompt, (_, row) in zip(prompts, cases)])
        self.run_dir = run = pathlib.Path(
            tempfile.mkdtemp(dir=self.folder)) / "run"  # another rule is another experiment
        self.ok("train", self.config(len(cases)), f"run_dir={run}", *options)
        samples = [json.loads(line) for line in
                   self.ok("rollouts", run / "rollouts/step_000001.h5", "--json", "--limit", "0").stdout.splitlines()]
        first = sorted((sample for sample in samples if sample["sample_index"] == 0),
                       key=lambda sample: sample["prompt_index"])
        self.assertEqual([sample["response"] for sample in first],
                         [response for response, _ in cases])
        return [sample["reward"] for sample in first]

    def write_rows(self, name, rows):
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def config(self, prompts):
        path = self.folder / "config.yaml"
        path.write_text(f"""
model: {{path: model}}
data: {{env: gsm8k, train_files: [rows.jsonl], train_batch_size: {prompts}, max_prompt_length: 16, max_response_length: 4, shuffle: false}}
rollout: {{n: 2}}
actor: {{optim: {{lr: 0}}}}
trainer: {{total_training_steps: 1, save_freq: -1, tensorboard: false}}
cluster: {{threads: 1}}
""")
        return path

    def test_marked_answers(self):
        cases = [("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1), ("\\boxed{\\frac{1}{2}}", "2", 0),
                 ("\\boxed{x^2}", "x^2", 1),
                 ("\\boxed{x^2}", "2", 0), ("\\boxed{(1,2)}", "(1,2)", 1), ("#### 3 cm", "3 cm", 1),
                 ("#### 12:30", "12:30", 1), ("#### 20 out of 30", "20", 1),
                 ("#### 20 out of 30", "30", 0), ("#### 42 (from 50-8)", "42", 1)]
        truths = [(response, {"reward_model": {"ground_truth": truth}}) for response, truth, _ in cases]
        self.assertEqual(self.rewards(truths), [reward for *_, reward in cases])

    def test_numbers(self):
        cases = [("The answer is .5", "0.5", 1), ("The answer is .5", "5", 0), ("\\boxed{.75 meters}", "0.75", 1),
                 ("#### \u22125", "-5", 1), ("#### \u22125", "5", 0), ("\\boxed{1{,}234}", "1234", 1),
                 ("\\boxed{1\\,234}", "1234", 1), ("#### 1\u202f234", "1234", 1), ("#### 1'234", "1234", 1), ("#### 1e3", "1000", 1),
                 ("\\boxed{3 \\times 10^5}", "5", 0), ("\\boxed{3 \\times 10^5}", 3e5, 1), ("#### 3, 4", "34", 0),
                 ("#### 1 1/2", "11/2", 0), ("#### 1 1/2", 1.5, 1), ("#### 0.00001", 1e-5, 1),
                 ("#### 1000000000000000000000", 1e21, 1), ("#### 100000000000000000001", 100000000000000000001, 1),
                 ("#### 100000000000000000000", 100000000000000000001, 0), ("so 7 \\fbox{42} and 9", "42", 1),
                 ("#### 4/2", "2", 1), ("#### \uff14\uff12", "42", 1)]
        truths = [(response, {"reward_model": {"ground_truth": truth}}) for response, truth, _ in cases]
        self.assertEqual(self.rewards(truths), [reward for *_, reward in cases])

    def test_the_rule_follows_the_data_source(self):
        row = {"reward_model": {"ground_truth": "5"}}
        cases = [("it is 5", {**row, "data_source": "math500"}, 0),
                 ("\\boxed{5}", {**row, "data_source": "HuggingFaceH4/MATH-500"}, 1),
                 ("it is 5", {**row, "data_source": "openai/gsm8k"}, 1), ("it is 5", row, 1),
                 ("#### 5", row, 1)]
        self.assertEqual(self.rewards([case[:2] for case in cases]),
                         [reward for *_, reward in cases])
        self.assertEqual(self.rewards([case[:2] for case in cases], "data.reward_rule=math-boxed"),
                         [0, 1, 0, 0, 0])
        self.assertEqual(
            self.rewards([case[:2] for case in cases], "data.answer_extraction=strict"),
            [0, 1, 0, 0, 1])
        unknown = [("it is 5", {**row, "data_source": "my/set"})]
        self.write_rows("rows.jsonl", [{"prompt": "<q0>", **unknown[0][1]}])
        self.fails(2, "train", self.config(1), f"run_dir={self.folder}/x",
                   says=["rows.jsonl:1", "my/set", "data.reward_rule"])
        self.fails(2, "train", self.config(1), f"run_dir={self.folder}/x", "data.on_error=skip",
                   says=["rows.jsonl:1", "my/set", "data.reward_rule"])
        self.assertEqual(self.rewards(unknown, "data.reward_rule=gsm8k"), [1])
        self.write_rows("rows.jsonl", [{"prompt": "<q0>", "reward_model": {"ground_truth": "$$"}}])
        self.fails(2, "train", self.config(1), f"run_dir={self.folder}/x",
                   says=["rows.jsonl:1", "ground truth"])

    def test_words_that_are_no_unit(self):
        math = {"data_source": "math500"}
        cases = [("\\boxed{3\\mathrm{i}}", "3", math, 0),
                 ("\\boxed{2\\text{ thirds}}", "2", math, 0), ("\\boxed{5 dozen}", "5", math, 0),
                 ("\\boxed{5\\text{ does not work}}", "5", math, 0),
                 ("\\boxed{5\\text{ cm}}", "5", math, 1), ("\\boxed{5\\text{ m}}", "5", math, 1),
                 ("\\boxed\n{12}", "12", math, 1), ("\\boxed{(42)}", "42", math, 1)]
        truths = [(response, {"reward_model": {"ground_truth": truth}, **more})
                  for response, truth, more, _ in cases]
        self.assertEqual(self.rewards(truths), [reward for *_, reward in cases])

    def test_headings_and_larger_expressions(self):
        headings = "#### 1. Compute\n9*2 = 18\n\n#### 2. Answer\nShe makes $18."
        cases = [(headings, "2", 0), (headings, "18", 1), ("\\boxed{18}\n\n#### 2. Verification\nIt is right.", "18", 1),
                 ("#### Total for week 3: $18", "3", 0), ("#### Total for week 3: $18", "18", 1), ("#### (2, 4)", "2", 0),
                 ("#### 1.234,56", "1.234", 0), ("#### 12h30", "12", 0), ("#### 20 - 2 = 18", "20", 0), ("#### 20 - 2 = 18", "18", 1),
                 ("\\boxed{72}\n#### Explanation", "72", 1), ("#### 5 apples and 3 pears", "5", 1)]
        truths = [(response, {"reward_model": {"ground_truth": truth}}) for response, truth, _ in cases]
        self.assertEqual(self.rewards(truths), [reward for *_, reward in cases])

    def test_files_of_other_formats(self):
        self.rewards([("#### 5", {"reward_model": {"ground_truth": "5"}})])  # writes the model
        for contents, says in [(b"PAR1\x15\x00", ["rows.jsonl", "Parquet", "JSON Lines",
                                                  "to_json"]),
                               (b'[\n{"prompt": "q"}\n]\n', ["JSON array"]),
                               (b"\x1f\x8b\x08\x00", ["gzip"])]:
            config = self.config(1)
            (self.folder / "rows.jsonl").write_bytes(contents)
            self.fails(2, "train", config, f"run_dir={self.folder}/x", says=says)

    def test_verls_keys_win(self):
        truth = {"reward_model": {"ground_truth": "5"}}
        self.assertEqual(
            self.rewards([("#### 5", {**truth, "question": "Q", "answer": "#### 7"}),
                          ("#### 7", {**truth, "question": "Q"})]), [1, 0])

    def test_validation_keeps_the_data_source(self):
        self.rewards(
            [("#### 5", {"data_source": "openai/gsm8k", "reward_model": {"ground_truth": "5"}})],
            f"data.val_files=[{self.folder}/rows.jsonl]", "trainer.test_freq=-1")
        names = {name for line in metrics(self.run_dir) for name in line}
        self.assertTrue(any(name.startswith("val-core/openai/gsm8k/") for name in names), names)


if __name__ == "__main__":
    unittest.main()
