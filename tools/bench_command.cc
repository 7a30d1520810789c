#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "experiments/bench.h"
#include "tools/commands.h"
#include "tools/model_options.h"

namespace orrery {
namespace {

void print(const BenchReport& report, bool json) {
  if (json) {
    nlohmann::ordered_json row = {{"bench", report.title}, {"note", report.note}};
    for (const auto& [name, value] : report.figures) row[name] = value;
    std::printf("%s\n", row.dump().c_str());
    return;
  }
  std::printf("%s\n", report.title.c_str());
  if (!report.note.empty()) std::printf("note: %s\n", report.note.c_str());
  for (const auto& [name, value] : report.figures) std::printf("  %-28s %12.4g\n", name.c_str(), value);
}

struct Options {
  ModelOptions model;
  BenchOptions bench;
  bool json = false;
};

void add_one(CLI::App& parent, Command& run, const std::string& name, const std::string& help,
             const std::string& example, BenchReport (*bench)(const BenchOptions&)) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->footer("Example:\n  " + example);
  auto options = std::make_shared<Options>();
  BenchOptions& b = options->bench;
  options->model.add_to(*command);
  const auto positive = [&](const std::string& flag, int64_t& value, const std::string& text) {
    command->add_option(flag, value, text)->check(whole_number(1))->capture_default_str();
  };
  if (name == "train") {
    positive("--batch", b.batch, "Sequences");
    positive("--seq-len", b.seq_len, "Tokens of each");
  } else {
    b.samples = name == "step" ? 8 : 1;
    if (name == "step") positive("--prompts", b.prompts, "Prompts");
    if (name == "rollout") positive("--batch", b.batch, "Sequences decoded at once");
    positive("--samples", b.samples,
             name == "step" ? "Samples of each prompt" : "Sequences that share a prompt");
    positive("--prompt-len", b.prompt_len, "Prompt tokens");
    positive("--gen-len", b.gen_len, "Generated tokens");
  }
  if (name != "rollout") {
    positive("--max-token-len", b.max_token_len, "Tokens of one forward and backward");
    positive("--gradient-shards", b.gradient_shards, "Gradient shards, a power of two");
  }
  positive("--repeats", b.repeats, "Measured repetitions, after one warm-up; medians are printed");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([=, &run] {
    run = [=] {
      options->bench.model = options->model.folder;
      options->bench.compute_dtype = options->model.compute_dtype();
      options->bench.ctx = options->model.context();
      const int64_t shards = options->bench.gradient_shards;
      if ((shards & (shards - 1)) != 0) fail_usage("--gradient-shards {} is not a power of two", shards);
      if (options->bench.batch % options->bench.samples != 0 && name == "rollout") {
        fail_usage("--batch {} is not a multiple of --samples {}", options->bench.batch,
                   options->bench.samples);
      }
      print(bench(options->bench), options->json);
      return kExitOk;
    };
  });
}

}  // namespace

void add_bench_command(CLI::App& app, Command& run) {
  CLI::App* command = app.add_subcommand("bench", "Measure tokens/s, MFU and memory on random tokens");
  command->require_subcommand(1);
  command->footer(
      "A folder holding only config.json gets random weights. MFU is against the speed of a large matrix "
      "product\n"
      "measured in the same run; model FLOPs count causal attention and no recomputation.");
  add_one(*command, run, "rollout", "Prefill and decode",
          "orrery bench rollout --model models/SmolLM2-135M --batch 64 --prompt-len 64 --gen-len 192",
          bench_rollout);
  add_one(*command, run, "train", "Forward, backward and optimizer step",
          "orrery bench train --model models/SmolLM2-135M --batch 8 --seq-len 256", bench_train);
  add_one(
      *command, run, "step", "A whole GRPO step",
      "orrery bench step --model models/SmolLM2-135M --prompts 8 --samples 8 --prompt-len 60 --gen-len 128",
      bench_step);
}

}  // namespace orrery
