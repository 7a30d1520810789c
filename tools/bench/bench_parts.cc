#include "tools/bench/bench_parts.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"
#include "core/host_image.h"
#include "core/rng.h"
#include "experiments/metrics.h"
#include "experiments/model_source.h"
#include "kernels/peak.h"

namespace orrery::tools::bench {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double slowest(comm::Communicator& comm, double seconds) {
  std::array<double, 1> all = {seconds};
  comm.all_reduce_max(all);
  return all[0];
}

Model load(const BenchOptions& options, int64_t positions, const char* length_options) {
  const experiments::ModelSource source(options.model, "--model");
  const models::ModelConfig config = source.config();
  if (positions > config.max_position_embeddings) {
    fail_usage("sequences of {} tokens, but {} handles {} positions; lower {}", positions,
               source.name(), config.max_position_embeddings, length_options);
  }
  if (std::string_view(length_options) == kLengths)
    (void)experiments::longest_sequence_bytes(config, options.compute_dtype, positions, kLengths);
  Model model{std::make_unique<models::Transformer>(config, options.ctx.device,
                                                    options.compute_dtype, positions),
              ""};
  models::Transformer& t = *model.transformer;
  HostImage weights(options.ctx, t.write_parameters());
  if (source.has_weights()) {
    source.read_weights(options.ctx, config, t.table(), weights.values());
  } else {
    models::initialize_parameters(config, t.table(), options.seed, weights.values());
    model.note = "no weights in the folder: random ones are used";
  }
  weights.commit();
  t.pack(options.ctx);
  return model;
}

std::vector<int32_t> random_prompt(const BenchOptions& options, int64_t vocab, uint64_t index,
                                   int64_t length) {
  Philox generator(options.seed, RngPurpose::kData, index);
  const auto ids = static_cast<uint32_t>(vocab);
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = generator.below(ids);
  return tokens;
}

rollout::EngineConfig engine_config(const BenchOptions& options, const models::ModelConfig& model,
                                    int64_t sequences) {
  rollout::EngineConfig config;
  config.max_num_seqs = sequences;
  config.max_model_len = options.prompt_len + options.gen_len;
  config.kv_cache_bytes =
      std::max(size_t{8} << 30, experiments::longest_sequence_bytes(
                                    model, options.compute_dtype, config.max_model_len, kLengths));
  return config;
}

std::vector<rollout::GenerateResult> rollout(const BenchOptions& options, rollout::Engine& engine,
                                             int64_t vocab, int64_t begin, int64_t end,
                                             int64_t new_tokens, uint64_t step) {
  for (int64_t i = begin; i < end; ++i) {
    rollout::GenerateRequest request;
    request.seed = options.seed;
    request.step = step;
    request.prompt_index = i;
    request.n = static_cast<uint32_t>(options.samples);
    request.prompt = random_prompt(options, vocab, request.prompt_index, options.prompt_len);
    request.max_new_tokens = new_tokens;
    engine.submit(std::move(request));
  }
  return engine.run();
}

double rollout_flops(const BenchOptions& options, const models::ModelConfig& config,
                     int64_t prompts) {
  const kernels::AttentionSegment prompt{0, options.prompt_len, 0, -1};
  const kernels::AttentionSegment response{0, options.gen_len - 1, options.prompt_len, 0};
  const models::ForwardFlops a = models::forward_flops(config, std::span(&prompt, 1), 1);
  const models::ForwardFlops b =
      models::forward_flops(config, std::span(&response, 1), options.gen_len - 1);
  const double prompt_flops = a.matmul + a.attention_causal + a.head;
  const double response_flops = b.matmul + b.attention_causal + b.head;
  return prompts * prompt_flops + (prompts * options.samples) * response_flops;
}

learners::LearnerConfig learner_config(const BenchOptions& options,
                                       const comm::Communicator& comm) {
  if (options.gradient_shards % comm.size() != 0) {
    const bool power = (comm.size() & (comm.size() - 1)) == 0;
    fail_usage("--gradient-shards {} cannot be shared by {} ranks evenly; {}",
               options.gradient_shards, comm.size(),
               power ? fmt::format("give at least {}", comm.size())
                     : std::string("start a number of ranks that is a power of two"));
  }
  return {options.gradient_shards, options.max_token_len, /*fast_reduce=*/false,
          comm::Mesh({{comm::Axis::kDp, comm.size()}})};
}

learners::UpdateResult update(const Context& ctx, learners::Learner& learner,
                              std::span<learners::Tree> trees,
                              const learners::Objective& objective) {
  const ProfilePhaseScope phase(ctx, "update");
  return learner.update(trees, objective, {}, 1.0);
}

void UpdateSeconds::add(comm::Communicator& comm, const learners::UpdateResult& result) {
  // The reduction's time is mostly waiting for the slowest rank, which waits least and
  // is in `gradient` already.
  std::array<double, 4> parts = {result.gradient_seconds, result.optimizer_seconds,
                                 result.pack_seconds, -result.reduce_seconds};
  comm.all_reduce_max(parts);
  gradient.push_back(parts[0]);
  optimizer.push_back(parts[1]);
  pack.push_back(parts[2]);
  reduce.push_back(-parts[3]);
}

std::string layout(const BenchOptions& options, const comm::Communicator& comm) {
  const std::string threads = fmt::format("{} thread(s)", options.ctx.threads);
  return comm.size() == 1 ? threads : fmt::format("{} ranks of {}", comm.size(), threads);
}

Limits::Limits(const BenchOptions& options, comm::Communicator& comm)
    : options_(options), comm_(comm) {
  all_ = measure(own_);
}

double Limits::measure(double& own) const {
  comm_.barrier();
  own = kernels::measure_gemm_peak(options_.ctx, options_.compute_dtype);
  std::array<double, 1> sum = {own};
  comm_.all_reduce_sum(std::span<double>(sum));
  return sum[0];
}

void Limits::finish(BenchReport& report, const Profile& profile, double expected_bytes) {
  constexpr double kGib = 1 << 30;
  double own_after = 0;
  const double after = measure(own_after);
  std::array<double, 3> sums = {expected_bytes / kGib, experiments::peak_memory_gib(), 0};
  // Last, as it takes memory of its own and the peak is known by now.
  const double bandwidth = kernels::measure_memory_bandwidth(options_.ctx);
  sums[2] = bandwidth;
  comm_.all_reduce_sum(std::span<double>(sums));
  report.figures.emplace_back("gemm_peak_gflops_before", all_ * 1e-9);
  report.figures.emplace_back("gemm_peak_gflops_after", after * 1e-9);
  report.figures.emplace_back("memory_gbytes_per_s", sums[2] * 1e-9);
  report.figures.emplace_back("expected_memory_gib", sums[0]);
  report.figures.emplace_back("peak_memory_gib", sums[1]);
  report.breakdown =
      make_breakdown(profile, options_.repeats, std::max(own_, own_after), bandwidth);
}

}  // namespace orrery::tools::bench
