#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/error_report.h"
#include "experiments/agreement.h"
#include "experiments/job.h"
#include "experiments/on_all_ranks.h"
#include "tools/bench/bench.h"
#include "tools/commands.h"
#include "tools/model_options.h"
#include "tools/ranks.h"

namespace orrery::tools {
namespace {

nlohmann::ordered_json to_json(const Breakdown::Row& row) {
  return {{"name", row.name},
          {"calls", row.calls},
          {"seconds", row.seconds},
          {"share", row.share},
          {"gflops_per_s", row.flops * 1e-9},
          {"of_product_peak", row.of_product},
          {"gbytes_per_s", row.bytes * 1e-9},
          {"of_memory_bandwidth", row.of_bandwidth}};
}

nlohmann::ordered_json to_json(const Breakdown& breakdown) {
  auto phases = nlohmann::ordered_json::array();
  for (const Breakdown::Phase& phase : breakdown.phases) {
    const Breakdown::Row& row = phase;
    nlohmann::ordered_json one = to_json(row);
    one["ops"] = nlohmann::ordered_json::array();
    for (const Breakdown::Row& op : phase.ops) one["ops"].push_back(to_json(op));
    phases.push_back(std::move(one));
  }
  return phases;
}

void print(const BenchReport& report, bool json) {
  if (json) {
    nlohmann::ordered_json row = {{"bench", report.title}, {"note", report.note}};
    for (const auto& [name, value] : report.figures) row[name] = value;
    row["breakdown"] = to_json(report.breakdown);
    std::printf("%s\n", row.dump().c_str());
    return;
  }
  std::printf("%s\n", report.title.c_str());
  if (!report.note.empty()) std::printf("note: %s\n", report.note.c_str());
  for (const auto& [name, value] : report.figures)
    std::printf("  %-28s %12.4g\n", name.c_str(), value);
  std::printf("\n%s", breakdown_table(report.breakdown).c_str());
}

struct Options {
  ModelOptions model;
  BenchOptions bench;
  bool json = false;
};

/// Of one option; more than any machine does in a day.
constexpr int64_t kMaxOptionValue = int64_t{1} << 24;
/// Of all sequences together.
constexpr int64_t kMaxTokens = int64_t{1} << 28;

/// What the option parser does not see.
void check_options(const BenchOptions& b, const std::string& name) {
  const int64_t shards = b.gradient_shards;
  if ((shards & (shards - 1)) != 0)
    fail_usage("--gradient-shards {} is not a power of two", shards);
  if (name == "rollout" && b.batch % b.samples != 0) {
    fail_usage("--batch {} is not a multiple of --samples {}", b.batch, b.samples);
  }
  const int64_t sequences = name == "step" ? b.prompts * b.samples : b.batch,
                length = name == "train" ? b.seq_len : b.prompt_len + b.gen_len;
  if (sequences > kMaxTokens / length) {
    const char* const lower = name == "step" ? "--prompts, --samples, --prompt-len or --gen-len"
                              : name == "rollout" ? "--batch, --prompt-len or --gen-len"
                                                  : "--batch or --seq-len";
    fail_usage(
        "{} sequences of {} tokens are more than the {} tokens that bench measures; lower {}",
        sequences, length, kMaxTokens, lower);
  }
}

/// What all ranks must be called with alike.
std::vector<experiments::Fact> facts(const CLI::App& command, const Options& options) {
  const BenchOptions& b = options.bench;
  std::vector<experiments::Fact> all = {{"command", "bench " + command.get_name(), ""},
                                        {"--device", options.model.device, ""},
                                        {"--dtype", options.model.dtype, ""}};
  for (const auto& [flag, value] : {std::pair<const char*, int64_t>{"--batch", b.batch},
                                    {"--seq-len", b.seq_len},
                                    {"--prompts", b.prompts},
                                    {"--samples", b.samples},
                                    {"--prompt-len", b.prompt_len},
                                    {"--gen-len", b.gen_len},
                                    {"--max-token-len", b.max_token_len},
                                    {"--gradient-shards", b.gradient_shards},
                                    {"--repeats", b.repeats}}) {
    if (command.get_option_no_throw(flag) != nullptr)
      all.push_back({flag, std::to_string(value), ""});
  }
  return all;
}

/// Names the options where memory ends.
BenchReport run_bench(BenchReport (*bench)(const BenchOptions&, comm::Communicator&),
                      const BenchOptions& options, comm::Communicator& world,
                      const std::string& name) {
  try {
    return bench(options, world);
  } catch (const std::exception& error) {
    const ErrorReport report = describe_error(error);
    if (!report.text.starts_with("out of memory")) throw;
    const std::string text = fmt::format(
        "{}; lower {}", report.text.substr(0, report.text.find(';')),
        name == "rollout" ? "--batch, --prompt-len or --gen-len"
        : name == "step"  ? "--max-token-len, --prompts, --samples, --prompt-len or --gen-len"
                          : "--max-token-len, --batch or --seq-len");
    if (dynamic_cast<const experiments::AgreedError*>(&error) != nullptr)
      throw experiments::AgreedError(text, report.exit_code);
    throw UserError(text, report.exit_code);
  }
}

/// One of `orrery bench`'s commands.
struct Measured {
  std::string name;
  const CLI::App* command;
  BenchReport (*bench)(const BenchOptions&, comm::Communicator&);
};

int run_one(const Measured& what, const std::shared_ptr<Options>& options) {
  BenchOptions& bench = options->bench;
  bench.model = options->model.folder;
  bench.compute_dtype = options->model.compute_dtype();
  check_options(bench, what.name);
  Ranks ranks;
  try {
    experiments::agree(ranks.world(), facts(*what.command, *options));
    experiments::on_all_ranks(ranks.world(),
                              [&] { bench.ctx = options->model.context(ranks.local()); });
    experiments::set_up_data_plane(ranks.world(), proto::ClusterSection(), "--device",
                                   bench.ctx.device);
    if (options->model.threads == 0)
      bench.ctx.threads = std::max(1, bench.ctx.threads / std::max(1, ranks.local().size));
    const BenchReport report = run_bench(what.bench, bench, ranks.world(), what.name);
    if (ranks.is_main()) print(report, options->json);
    return kExitOk;
  } catch (const std::exception& error) {
    return ranks.fail(error);
  }
}

void add_one(CLI::App& parent, Command& run, const std::string& name, const std::string& help,
             const std::string& example,
             BenchReport (*bench)(const BenchOptions&, comm::Communicator&)) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->footer("Example:\n  " + example);
  auto options = std::make_shared<Options>();
  BenchOptions& b = options->bench;
  options->model.add_to(*command);
  const auto positive = [&](const std::string& flag, int64_t& value, const std::string& text,
                            int64_t most = kMaxOptionValue) {
    command->add_option(flag, value, text)->check(whole_number(1, most))->capture_default_str();
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
    positive("--gradient-shards", b.gradient_shards, "Gradient shards, a power of two", 1 << 16);
  }
  positive("--repeats", b.repeats, "Measured repetitions, after one warm-up; medians are printed",
           10'000);
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([=, &run] {
    run = std::bind_front(run_one, Measured{name, command, bench}, options);
  });
}

}  // namespace

void add_bench_command(CLI::App& app, Command& run) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure tokens/s, MFU and memory on random tokens");
  command->require_subcommand(1);
  command->footer(
      "A folder holding only config.json gets random weights; "
      "a checkpoint or a run's folder is taken too. "
      "MFU is against the speed of a large matrix product\n"
      "measured in the same run; model FLOPs count causal attention and no recomputation.\n"
      "\n"
      "After the figures comes where the time goes, by phase and op: "
      "of rank 0, the mean of the measured repetitions.\n"
      "  prefill, decode      engine steps with prompt tokens, and without\n"
      "  forward, backward    of the transformer's layers; head and loss: "
      "from the last norm to its gradient\n"
      "  update               what else a learner does: gradient shards, the embedding's gradient\n"
      "  reduce               between ranks, inside the backward too\n"
      "  optimizer, pack, exchange (ranks handing each other samples), rest (outside of all)\n"
      "  other                a phase's time less its ops'\n"
      "GFLOP/s count the formula's operations: causal attention, "
      "twice the forward's for a backward; peak is their share\n"
      "of the measured product. GB/s count each operand read once and each result written once; "
      "memory is their share\n"
      "of what y += x moves over 256 MiB each (more than 100%: caches held some). "
      "A product near neither is worth a look.");
  add_one(
      *command, run, "rollout", "Prefill and decode",
      "orrery bench rollout --model models/SmolLM2-135M --batch 64 --prompt-len 64 --gen-len 192",
      bench_rollout);
  add_one(*command, run, "train", "Forward, backward and optimizer step",
          "orrery bench train --model models/SmolLM2-135M --batch 8 --seq-len 256", bench_train);
  add_one(
      *command, run, "step", "A whole GRPO step",
      "orrery bench step --model models/SmolLM2-135M --prompts 8 --samples 8 --prompt-len 60 "
      "--gen-len 128\n"
      "Under mpirun (-n 2 --bind-to none) each rank generates for its share of the prompts and all "
      "update together.",
      bench_step);
}

}  // namespace orrery::tools
