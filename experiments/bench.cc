#include "experiments/bench.h"

#include <algorithm>
#include <cmath>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/timer.h"
#include "experiments/metrics.h"
#include "kernels/peak.h"
#include "learners/advantage.h"
#include "learners/learner.h"
#include "models/hf_folder.h"
#include "rollout/engine.h"

namespace orrery {
namespace {

constexpr double kGib = 1 << 30;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct BenchModel {
  std::unique_ptr<Transformer> transformer;
  std::string note;
};

BenchModel load(const BenchOptions& options, int64_t positions) {
  const ModelConfig config = load_model_config(options.model);
  if (positions > config.max_position_embeddings) {
    fail_usage("sequences of {} tokens, but {} handles {} positions", positions, options.model.string(),
               config.max_position_embeddings);
  }
  BenchModel model{
      std::make_unique<Transformer>(config, options.ctx.device, options.compute_dtype, positions), ""};
  Transformer& t = *model.transformer;
  if (has_weights(options.model)) {
    load_hf_weights(options.ctx, options.model, config, t.table(), t.parameters());
  } else {
    initialize_parameters(config, t.table(), options.seed, t.parameters());
    model.note = "no weights in the folder: random ones are used";
  }
  t.pack(options.ctx);
  return model;
}

std::vector<int32_t> random_prompt(const BenchOptions& options, int64_t vocab, uint64_t index,
                                   int64_t length) {
  Philox generator(options.seed, RngPurpose::kData, index);
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int32_t& token : tokens) token = static_cast<int32_t>(generator.below(static_cast<uint32_t>(vocab)));
  return tokens;
}

EngineConfig engine_config(const BenchOptions& options, int64_t sequences) {
  EngineConfig config;
  config.max_num_seqs = sequences;
  config.max_model_len = options.prompt_len + options.gen_len;
  config.kv_cache_bytes = size_t{8} << 30;
  return config;
}

std::vector<GenerateResult> rollout(const BenchOptions& options, Engine& engine, int64_t vocab,
                                    int64_t prompts, int64_t samples, int64_t new_tokens, uint64_t step) {
  for (int64_t i = 0; i < prompts; ++i) {
    GenerateRequest request;
    request.seed = options.seed;
    request.step = step;
    request.prompt_index = static_cast<uint64_t>(i);
    request.n = static_cast<uint32_t>(samples);
    request.prompt = random_prompt(options, vocab, static_cast<uint64_t>(i), options.prompt_len);
    request.max_new_tokens = new_tokens;
    engine.submit(std::move(request));
  }
  return engine.run();
}

/// FLOPs of generating: each sequence's tokens once, the head for generated ones.
double rollout_flops(const ModelConfig& config, int64_t prompts, int64_t samples, int64_t prompt_len,
                     int64_t gen_len) {
  const AttentionSegment prompt{0, prompt_len, 0, -1}, response{0, gen_len - 1, prompt_len, 0};
  const ForwardFlops a = forward_flops(config, std::span(&prompt, 1), 1);
  const ForwardFlops b = forward_flops(config, std::span(&response, 1), gen_len - 1);
  return static_cast<double>(prompts) * (a.matmul + a.attention_causal + a.head) +
         static_cast<double>(prompts * samples) * (b.matmul + b.attention_causal + b.head);
}

/// What training and rollout need by formula, bytes.
double expected_train_bytes(const Transformer& model, const Learner* learner, const Engine* engine) {
  double bytes = static_cast<double>(model.memory_bytes());
  if (learner != nullptr) bytes += static_cast<double>(learner->memory_bytes());
  if (engine != nullptr) bytes += static_cast<double>(engine->memory_bytes());
  return bytes;
}

void add_common(BenchReport& report, const BenchOptions& options, double peak_before, double expected) {
  const double peak_after = measure_gemm_peak(options.ctx);
  report.figures.emplace_back("gemm_peak_gflops_before", peak_before * 1e-9);
  report.figures.emplace_back("gemm_peak_gflops_after", peak_after * 1e-9);
  report.figures.emplace_back("expected_memory_gib", expected / kGib);
  report.figures.emplace_back("peak_memory_gib", peak_memory_gib());
}

}  // namespace

BenchReport bench_rollout(const BenchOptions& options) {
  const double peak = measure_gemm_peak(options.ctx);
  const BenchModel loaded = load(options, options.prompt_len + options.gen_len);
  const Transformer& model = *loaded.transformer;
  const int64_t vocab = model.config().vocab_size,
                groups = std::max<int64_t>(1, options.batch / options.samples);
  Engine engine(options.ctx, model, nullptr, engine_config(options, options.batch));
  std::vector<double> prefill, total;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const Timer first;
    rollout(options, engine, vocab, groups, options.samples, 1, static_cast<uint64_t>(2 * i));
    const double prefill_seconds = first.seconds();
    const Timer second;
    rollout(options, engine, vocab, groups, options.samples, options.gen_len,
            static_cast<uint64_t>(2 * i + 1));
    if (i == 0) continue;  // warm-up
    prefill.push_back(prefill_seconds);
    total.push_back(second.seconds());
  }
  const auto sequences = static_cast<double>(groups * options.samples);
  const double prefill_seconds = median(prefill), seconds = median(total);
  const double decode_seconds = std::max(seconds - prefill_seconds, 1e-9);
  BenchReport report{fmt::format("rollout: {} prompts x {} samples, {} in + {} out, {} thread(s)", groups,
                                 options.samples, options.prompt_len, options.gen_len, options.ctx.threads),
                     loaded.note,
                     {}};
  report.figures = {
      {"tokens_per_s", sequences * static_cast<double>(options.gen_len) / seconds},
      {"prefill_tokens_per_s", static_cast<double>(groups * options.prompt_len) / prefill_seconds},
      {"decode_tokens_per_s", sequences * static_cast<double>(options.gen_len - 1) / decode_seconds},
      {"prefill_seconds", prefill_seconds},
      {"decode_seconds", decode_seconds},
      {"total_seconds", seconds},
      {"mfu", rollout_flops(model.config(), groups, options.samples, options.prompt_len, options.gen_len) /
                  seconds / peak}};
  add_common(report, options, peak, expected_train_bytes(model, nullptr, &engine));
  return report;
}

BenchReport bench_train(const BenchOptions& options) {
  const double peak = measure_gemm_peak(options.ctx);
  const BenchModel loaded = load(options, options.seq_len);
  Transformer& model = *loaded.transformer;
  const auto comm = make_local_communicator();
  Learner learner(options.ctx, model, *comm, {options.gradient_shards, options.max_token_len, false});
  Objective objective;
  objective.sft = true;
  std::vector<std::vector<int32_t>> sequences;
  for (int64_t i = 0; i < options.batch; ++i) {
    sequences.push_back(
        random_prompt(options, model.config().vocab_size, static_cast<uint64_t>(i), options.seq_len + 1));
  }
  const std::vector<uint8_t> mask(static_cast<size_t>(options.seq_len), 1);
  std::vector<double> gradient, optimizer, pack, total;
  double flops = 0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    std::vector<Tree> trees;
    for (const auto& tokens : sequences) {
      Leaf leaf;
      leaf.tokens = std::span(tokens).subspan(1);
      leaf.loss_mask = mask;
      leaf.weight = static_cast<float>(1.0 / static_cast<double>(options.batch * options.seq_len));
      trees.push_back({std::span(tokens).first(1), {}});
      trees.back().leaves.push_back(std::move(leaf));
    }
    const Timer timer;
    const UpdateResult result = learner.update(trees, objective, {}, 1.0);
    if (i == 0) continue;
    total.push_back(timer.seconds());
    gradient.push_back(result.gradient_seconds);
    optimizer.push_back(result.optimizer_seconds + result.reduce_seconds);
    pack.push_back(result.pack_seconds);
    flops = result.model_flops;
  }
  const auto tokens = static_cast<double>(options.batch * options.seq_len);
  BenchReport report{fmt::format("train: {} x {} tokens, {} gradient shard(s), {} thread(s)", options.batch,
                                 options.seq_len, options.gradient_shards, options.ctx.threads),
                     loaded.note,
                     {}};
  report.figures = {{"tokens_per_s", tokens / median(gradient)},
                    {"tokens_per_s_with_optimizer", tokens / median(total)},
                    {"forward_backward_seconds", median(gradient)},
                    {"optimizer_seconds", median(optimizer)},
                    {"pack_seconds", median(pack)},
                    {"mfu", flops / median(gradient) / peak}};
  add_common(report, options, peak, expected_train_bytes(model, &learner, nullptr));
  return report;
}

BenchReport bench_step(const BenchOptions& options) {
  const double peak = measure_gemm_peak(options.ctx);
  const BenchModel loaded = load(options, options.prompt_len + options.gen_len);
  Transformer& model = *loaded.transformer;
  const auto comm = make_local_communicator();
  Engine engine(options.ctx, model, nullptr, engine_config(options, options.prompts * options.samples));
  Learner learner(options.ctx, model, *comm, {options.gradient_shards, options.max_token_len, false});
  const std::vector<uint8_t> mask(static_cast<size_t>(options.gen_len), 1);
  std::vector<double> gen, gradient, optimizer, pack, total;
  double train_flops = 0, mismatch = 0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const Timer timer;
    engine.set_weight_version(static_cast<uint64_t>(i));
    const std::vector<GenerateResult> results =
        rollout(options, engine, model.config().vocab_size, options.prompts, options.samples, options.gen_len,
                static_cast<uint64_t>(i));
    const double gen_seconds = timer.seconds();
    std::vector<std::vector<int32_t>> prompts;
    std::vector<Tree> trees;
    for (int64_t p = 0; p < options.prompts; ++p) {
      prompts.push_back(
          random_prompt(options, model.config().vocab_size, static_cast<uint64_t>(p), options.prompt_len));
    }
    const double tokens = static_cast<double>(options.prompts * options.samples * options.gen_len);
    for (int64_t p = 0; p < options.prompts; ++p) {
      trees.push_back({prompts[static_cast<size_t>(p)], {}});
      for (int64_t s = 0; s < options.samples; ++s) {
        const GenerateResult& result = results[static_cast<size_t>(p * options.samples + s)];
        Leaf leaf;
        leaf.tokens = result.tokens;
        leaf.loss_mask = mask;
        leaf.old_logprobs = result.logprobs;
        leaf.advantage = s % 2 == 0 ? 1.0f : -1.0f;
        leaf.weight = static_cast<float>(1.0 / tokens);
        trees.back().leaves.push_back(std::move(leaf));
      }
    }
    const UpdateResult result = learner.update(trees, Objective{}, {}, 1.0);
    mismatch = std::max(mismatch, result.sums.logprob_diff_max);
    if (i == 0) continue;
    gen.push_back(gen_seconds);
    gradient.push_back(result.gradient_seconds);
    optimizer.push_back(result.optimizer_seconds + result.reduce_seconds);
    pack.push_back(result.pack_seconds);
    total.push_back(timer.seconds());
    train_flops = result.model_flops;
  }
  const auto tokens =
      static_cast<double>(options.prompts * options.samples * (options.prompt_len + options.gen_len));
  const double gen_flops =
      rollout_flops(model.config(), options.prompts, options.samples, options.prompt_len, options.gen_len);
  BenchReport report{
      fmt::format("GRPO step: {} prompts x {} samples, {} in + {} out, {} thread(s)", options.prompts,
                  options.samples, options.prompt_len, options.gen_len, options.ctx.threads),
      loaded.note,
      {}};
  report.figures = {{"step_seconds", median(total)},
                    {"tokens_per_s", tokens / median(total)},
                    {"gen_seconds", median(gen)},
                    {"gen_tokens_per_s",
                     static_cast<double>(options.prompts * options.samples * options.gen_len) / median(gen)},
                    {"forward_backward_seconds", median(gradient)},
                    {"optimizer_seconds", median(optimizer)},
                    {"pack_seconds", median(pack)},
                    {"mfu_rollout", gen_flops / median(gen) / peak},
                    {"mfu_learner", train_flops / median(gradient) / peak},
                    {"logprob_diff_max", mismatch}};
  add_common(report, options, peak, expected_train_bytes(model, &learner, &engine));
  return report;
}

}  // namespace orrery
