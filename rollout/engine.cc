#include "rollout/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/fault.h"
#include "core/profile.h"
#include "core/rng.h"
#include "core/timer.h"
#include "core/transfer.h"
#include "kernels/logprob.h"
#include "kernels/numerics.h"
#include "kernels/rows.h"
#include "rollout/engine_memory.h"
#include "rollout/scheduler.h"
#include "rollout/sequence.h"
#include "rollout/stop.h"

namespace orrery::rollout {
namespace {

constexpr uint32_t kMaxSamples = 1u << 20;

/// Temperature 0 takes the largest logit; its log-probs are those of the plain softmax.
float inv_temperature(const kernels::SamplingParams& sampling) {
  return sampling.temperature == 0.0f ? 1.0f : 1.0f / sampling.temperature;
}

uint32_t sample_index(const Sequence& sample) {
  return sample.group->request.first_sample + sample.sample;
}

void check_sampling(const GenerateRequest& request) {
  const kernels::SamplingParams& s = request.sampling;
  if (!kernels::is_temperature(s.temperature)) {
    fail(
        "prompt {}: temperature {}: float32 logits are multiplied by its inverse, "
        "so it must be 0 (greedy), or finite and at least {}",
        request.prompt_index, s.temperature, kernels::kMinTemperature);
  }
  if (!(s.top_p > 0 && s.top_p <= 1 && s.min_p >= 0 && s.min_p <= 1)) {
    fail("prompt {}: top_p {}, min_p {}: they must be in (0, 1] and [0, 1]", request.prompt_index,
         s.top_p, s.min_p);
  }
}

}  // namespace

struct Engine::Impl {
  Impl(const Context& c, const models::Transformer& m, const text::Tokenizer* t,
       const EngineConfig& engine_config)
      : ctx(c),
        model(m),
        tokenizer(t),
        config(resolve(engine_config, m, c.device)),
        cache(m.config(), m.compute_dtype(), c.device, config.kv_blocks, config.kv_memory),
        scheduler(config.max_num_seqs, config.max_num_batched_tokens, config.kv_blocks),
        arena(make_arena(config, c.device)) {
    stats.kv_blocks = config.kv_blocks;
  }

  void check(const GenerateRequest& request) const;
  void submit(GenerateRequest request);
  void prepare(const Schedule& schedule);
  models::ForwardBatch batch() const { return {tokens, positions, segments, output_rows}; }
  void reserve(const Schedule& schedule);
  void draw_tokens(ConstActMat hidden);
  void check_draws() const;
  void append_token(Sequence& sample, int64_t draw);
  void postprocess(const Schedule& schedule, std::vector<GenerateResult>& results);
  void count_step();

  Context ctx;
  const models::Transformer& model;
  const text::Tokenizer* tokenizer;
  EngineConfig config;
  models::KvCache cache;
  Scheduler scheduler;
  Arena arena;
  EngineStats stats;
  uint64_t weight_version = 0;
  bool others_wrote = true;  // perhaps, to lent memory
  std::unordered_map<const SequenceGroup*, std::unique_ptr<SequenceGroup>> groups;

  // The batch of a step; kept between steps so that the memory is used again.
  Array<int32_t> tokens, positions, output_rows;
  Array<kernels::KvSegment> segments;
  // One entry per token to draw: its sample, and the output row that holds its logits.
  Array<Sequence*> draw_samples;
  Array<int32_t> draw_rows, drawn;
  Array<float> uniforms, inv_temperatures, downloaded, logprobs, entropies;
  Array<kernels::SamplingParams> sampling;
};

void Engine::Impl::check(const GenerateRequest& request) const {
  const int64_t prompt_tokens = std::ssize(request.prompt);
  const uint64_t index = request.prompt_index;
  if (prompt_tokens == 0)
    fail("prompt {} is empty: it needs at least one token, for example BOS", index);
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < 0 || request.prompt[i] >= model.config().vocab_size) {
      fail("prompt {}: token {} is {}, outside the model's vocabulary of {}", index, i,
           request.prompt[i], model.config().vocab_size);
    }
  }
  if (request.n < 1 || request.n > kMaxSamples || request.first_sample > UINT32_MAX - request.n) {
    fail("prompt {}: {} samples from index {} on: n must be between 1 and {}", index, request.n,
         request.first_sample, kMaxSamples);
  }
  if (request.max_new_tokens < 1)
    fail("prompt {}: max_new_tokens is {}, at least 1 is needed", index, request.max_new_tokens);
  check_sampling(request);
  for (const std::string& stop : request.stop_strings) {
    if (stop.empty()) fail("prompt {}: a stop string is empty", index);
    if (tokenizer == nullptr)
      fail("prompt {}: stop strings need a tokenizer, and this engine has none", index);
  }
  if (prompt_tokens >= config.max_model_len) {
    fail(
        "prompt {}: {} tokens leave no room to generate within max_model_len {}: "
        "shorten it or raise the limit",
        index, prompt_tokens, config.max_model_len);
  }
  const int64_t max_tokens = std::min(request.max_new_tokens, config.max_model_len - prompt_tokens);
  const int64_t needed = Scheduler::min_blocks(prompt_tokens, max_tokens, request.n);
  if (needed > config.kv_blocks) {
    fail(
        "prompt {}: {} tokens and up to {} new ones need {} KV blocks of {} tokens, "
        "and the cache has {}: raise the KV cache's size or lower max_new_tokens",
        index, prompt_tokens, max_tokens, needed, models::KvCache::block_tokens(),
        config.kv_blocks);
  }
}

void Engine::Impl::submit(GenerateRequest request) {
  check(request);
  if (std::exchange(others_wrote, false)) cache.clear_lent(ctx);
  auto group = std::make_unique<SequenceGroup>();
  group->request = std::move(request);
  GenerateRequest& r = group->request;
  if (!r.stop_strings.empty()) {
    group->stop_strings = sort_stop_strings(*tokenizer, r.stop_strings);
    const std::vector<int32_t>& ids = group->stop_strings.ids;
    r.stop_token_ids.insert(r.stop_token_ids.end(), ids.begin(), ids.end());
  }
  group->max_tokens = std::min(r.max_new_tokens, config.max_model_len - group->prompt_tokens());
  group->prompt.group = group.get();
  group->samples.resize(r.n);
  int64_t place = 0;
  for (Sequence& sample : group->samples) {
    sample.group = group.get();
    sample.sample = place++;
    if (!r.stop_strings.empty()) sample.stop_matcher.emplace(*tokenizer, group->stop_strings);
  }
  SequenceGroup* raw = group.get();
  groups.emplace(raw, std::move(group));
  scheduler.submit(raw);
}

/// Lays out the rows of the scheduled sequences and lists the tokens to draw.
void Engine::Impl::prepare(const Schedule& schedule) {
  tokens.clear();
  positions.clear();
  output_rows.clear();
  segments.clear();
  draw_samples.clear();
  draw_rows.clear();
  for (const ScheduledRows& entry : schedule.entries) {
    Sequence& sequence = *entry.sequence;
    segments.push_back({tokens.size(), entry.rows, sequence.computed, sequence.blocks});
    for (int64_t p = sequence.computed; p < sequence.computed + entry.rows; ++p) {
      tokens.push_back(sequence.token_at(p));
      positions.push_back(p);
    }
    const bool decodes = entry.rows == 1 && !sequence.tokens.empty() && entry.wants_logits;
    (decodes ? stats.decode_tokens : stats.prefill_tokens) += entry.rows;
    if (!entry.wants_logits) continue;
    const int32_t row = output_rows.size();
    output_rows.push_back(tokens.size() - 1);
    const auto add_draw = [&](Sequence& sample) {
      draw_samples.push_back(&sample);
      draw_rows.push_back(row);
    };
    if (!sequence.is_prompt()) {
      add_draw(sequence);
    } else {
      for (Sequence& sample : sequence.group->samples) add_draw(sample);
    }
  }
}

/// Counts what the step will take, and reserves it.
void Engine::Impl::reserve(const Schedule& schedule) {
  Arena count = Arena::measuring(ctx.device);
  measure_step(model, batch(), std::ssize(schedule.copies), draw_samples.size(), count);
  arena.reserve(count.peak(), "a step of the rollout engine",
                "rollout.max_num_batched_tokens or rollout.max_num_seqs");
}

/// Draws a token from the logits of each draw's row, with its log-prob and entropy.
void Engine::Impl::draw_tokens(ConstActMat hidden) {
  const int64_t draws = draw_samples.size();
  sampling.clear();
  uniforms.clear();
  inv_temperatures.clear();
  for (const Sequence* sample : draw_samples) {
    const GenerateRequest& r = sample->group->request;
    const uint32_t position = r.generated_before + sample->tokens.size();
    sampling.push_back(r.sampling);
    uniforms.push_back(
        sample_uniform(r.seed, r.step, r.prompt_index, sample_index(*sample), position));
    inv_temperatures.push_back(inv_temperature(r.sampling));
  }
  const ArenaScope draw_scope(arena);
  const auto sampling_vec = upload_into(ctx, arena, Span<const kernels::SamplingParams>(sampling));
  const auto uniform_vec = upload_into(ctx, arena, Span<const float>(uniforms));
  const auto inv_temperature_vec = upload_into(ctx, arena, Span<const float>(inv_temperatures));
  // One behind the other, so that the host waits once for all three.
  const Vec<float> results = arena.vec<float>(3 * draws);
  const Vec<int32_t> drawn_vec(reinterpret_cast<int32_t*>(results.data), draws);
  const Vec<float> logprob_vec = results.part(draws, draws),
                   entropy_vec = results.part(2 * draws, draws);

  const int64_t vocab = model.config().vocab_size;
  const int64_t chunk = draws_at_once(model, draws);
  for (int64_t begin = 0; begin < draws; begin += chunk) {
    const int64_t count = std::min(chunk, draws - begin);
    const ArenaScope scope(arena);
    const Mat<float> logits = arena.mat<float>(count, vocab);
    const Span<const int32_t> rows = Span(draw_rows).subspan(begin, count);
    const int64_t first = rows.front(), last = rows.back();
    models::lm_head_forward(ctx, model, logits.row_range(0, last - first + 1),
                            hidden.row_range(first, last + 1));
    kernels::spread_rows(ctx, {.y = logits, .source = upload_into(ctx, arena, rows)});
    kernels::sample_forward(ctx, {.ids = drawn_vec.part(begin, count),
                                  .logits = logits,
                                  .params = sampling_vec.part(begin, count),
                                  .uniform = uniform_vec.part(begin, count)});
    kernels::logprob_forward(
        ctx, {.logprobs = logprob_vec.part(begin, count),
              .entropies = entropy_vec.part(begin, count),
              .logits = logits,
              .targets = drawn_vec.part(begin, count),
              .inv_temperature = inv_temperature_vec.part(begin, count),
              .numerics = kernels::numerics_class(ctx.device, model.compute_dtype())});
  }
  downloaded.resize(3 * draws);
  download(ctx, Span<float>(downloaded), results);
  drawn.resize(draws);
  if (draws > 0) std::memcpy(drawn.data(), downloaded.data(), draws * sizeof(int32_t));
  logprobs.resize(draws);
  entropies.resize(draws);
  std::copy_n(downloaded.data() + draws, draws, logprobs.data());
  std::copy_n(downloaded.data() + 2 * draws, draws, entropies.data());
}

void Engine::Impl::check_draws() const {
  for (int64_t i = 0; i < draw_samples.size(); ++i) {
    if (drawn[i] >= 0 && !std::isnan(logprobs[i]) && !std::isnan(entropies[i])) continue;
    const Sequence& sample = *draw_samples[i];
    throw NotFiniteError(fmt::format(
        "the model yields NaN for prompt {} sample {} at response token {} (weight version {}): "
        "its weights hold NaN or overflow",
        sample.group->request.prompt_index, sample_index(sample), sample.tokens.size(),
        weight_version));
  }
}

void Engine::Impl::append_token(Sequence& sample, int64_t draw) {
  const SequenceGroup& group = *sample.group;
  if (sample.tokens.empty()) {
    sample.tokens.reserve(group.max_tokens);
    sample.logprobs.reserve(group.max_tokens);
    sample.entropies.reserve(group.max_tokens);
    sample.weight_versions.reserve(group.max_tokens);
  }
  const int32_t id = drawn[draw];
  sample.tokens.push_back(id);
  sample.logprobs.push_back(logprobs[draw]);
  sample.entropies.push_back(entropies[draw]);
  sample.weight_versions.push_back(weight_version);

  const GenerateRequest& request = group.request;
  sample.ends_in_stop_id =
      std::ranges::find(request.stop_token_ids, id) != request.stop_token_ids.end();
  const bool stop =
      sample.ends_in_stop_id || (sample.stop_matcher && sample.stop_matcher->push(id));
  if (stop || std::ssize(sample.tokens) == group.max_tokens) {
    sample.finish_reason = stop ? FinishReason::kStop : FinishReason::kLength;
    scheduler.finish(&sample);
  }
}

/// Appends the drawn tokens, moves finished samples to `results`, and forgets groups
/// whose samples have all been handed out.
void Engine::Impl::postprocess(const Schedule& schedule, std::vector<GenerateResult>& results) {
  for (const ScheduledRows& entry : schedule.entries) Scheduler::mark_computed(entry);
  for (int64_t i = 0; i < draw_samples.size(); ++i) append_token(*draw_samples[i], i);
  for (const ScheduledRows& entry : schedule.entries) {
    SequenceGroup& group = *entry.sequence->group;
    if (!entry.sequence->is_prompt() || entry.sequence->computed < group.prompt_tokens()) continue;
    if (!group.first_tokens_drawn) {
      stats.shared_prompt_tokens += group.prompt_tokens() * (std::ssize(group.samples) - 1);
      group.first_tokens_drawn = true;
    }
    scheduler.prompt_computed(&group);
  }
  for (Sequence* sample : draw_samples) {
    if (sample->state != SequenceState::kFinished) continue;
    SequenceGroup* group = sample->group;
    results.push_back({group->request.prompt_index, sample_index(*sample),
                       std::move(sample->tokens), std::move(sample->logprobs),
                       std::move(sample->entropies), std::move(sample->weight_versions),
                       sample->finish_reason, sample->ends_in_stop_id});
    if (++group->delivered == std::ssize(group->samples)) groups.erase(group);
  }
}

void Engine::Impl::count_step() {
  ++stats.steps;
  stats.preemptions = scheduler.preemptions();
  stats.kv_blocks_in_use = scheduler.blocks().blocks_in_use();
}

Engine::Engine(const Context& ctx, const models::Transformer& model,
               const text::Tokenizer* tokenizer, const EngineConfig& config)
    : impl_(std::make_unique<Impl>(ctx, model, tokenizer, config)) {}
Engine::~Engine() = default;

void Engine::submit(GenerateRequest request) { impl_->submit(std::move(request)); }

bool Engine::has_work() const { return impl_->scheduler.has_work(); }

std::vector<GenerateResult> Engine::step() {
  Impl& engine = *impl_;
  std::vector<GenerateResult> results;
  const Schedule& schedule = engine.scheduler.schedule();
  if (schedule.rows == 0) return results;
  const bool decodes =
      std::ranges::all_of(schedule.entries, [](const ScheduledRows& i) { return i.rows == 1; });
  const ProfilePhaseScope phase(engine.ctx, decodes ? "decode" : "prefill");
  const bool corrupt = fault_point(FaultPoint::kEngineStep) == FaultAction::kCorrupt;
  engine.prepare(schedule);
  engine.reserve(schedule);
  engine.cache.copy_blocks(engine.ctx, schedule.copies, engine.arena);
  const ActMat hidden = engine.arena.act_mat(
      engine.model.compute_dtype(), engine.output_rows.size(), engine.model.config().hidden_size);
  {
    const ScopedTimer timer(engine.stats.forward_seconds);
    const models::BatchPlan plan =
        models::plan_forward(engine.ctx, engine.model, engine.batch(), engine.cache, engine.arena);
    models::transformer_forward(engine.ctx, engine.model, plan, engine.cache, hidden, engine.arena);
  }
  {
    const ScopedTimer timer(engine.stats.sample_seconds);
    engine.draw_tokens(hidden);
    engine.check_draws();
  }
  if (corrupt && !engine.logprobs.empty())
    engine.logprobs.front() = std::nextafter(engine.logprobs.front(), -1e30f);
  engine.postprocess(schedule, results);
  engine.count_step();
  return results;
}

std::vector<GenerateResult> Engine::run() {
  std::vector<GenerateResult> all;
  while (has_work()) {
    for (GenerateResult& result : step()) all.push_back(std::move(result));
  }
  std::ranges::sort(all, [](const GenerateResult& a, const GenerateResult& b) {
    return std::tie(a.prompt_index, a.sample_index) < std::tie(b.prompt_index, b.sample_index);
  });
  return all;
}

void Engine::set_weight_version(uint64_t version) {
  if (has_work())
    fail("engine: weight version {} arrived while samples of version {} are in flight", version,
         impl_->weight_version);
  impl_->weight_version = version;
  impl_->others_wrote = true;
}

void Engine::abort_all() {
  impl_->scheduler.clear();
  impl_->groups.clear();
  impl_->stats.kv_blocks_in_use = impl_->scheduler.blocks().blocks_in_use();
}

int64_t Engine::max_num_seqs() const { return impl_->config.max_num_seqs; }

const EngineStats& Engine::stats() const { return impl_->stats; }

Device Engine::device() const { return impl_->ctx.device; }
Fingerprint Engine::fingerprint() const {
  return fingerprint_of(impl_->ctx.device, impl_->model.compute_dtype());
}

size_t Engine::memory_bytes() const {
  const size_t temporaries = impl_->config.memory.empty() ? impl_->arena.capacity() : 0;
  return impl_->cache.own_bytes() + temporaries;
}

float sample_uniform(uint64_t seed, uint64_t step, uint64_t prompt_index, uint32_t sample_index,
                     uint32_t position) {
  // Philox is a bijection of its 128-bit counter. So `stream` differs for every
  // (prompt_index, step < 2^56) of a seed, and (stream, sample_index, position) fill
  // the key and the counter of the draw: no two draws share a block. Purposes are below
  // 256, so the counters of kSample stay apart from those of other purposes.
  const PhiloxBlock stream =
      philox4x32({low_half(prompt_index), high_half(prompt_index), low_half(step),
                  static_cast<uint32_t>(RngPurpose::kSample) | high_half(step) << 8},
                 {low_half(seed), high_half(seed)});
  return uniform_float(
      philox4x32({sample_index, position, stream[2], stream[3]}, {stream[0], stream[1]})[0]);
}

}  // namespace orrery::rollout
