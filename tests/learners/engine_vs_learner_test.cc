// Promise P1 under random schedules: whatever batches, chunks, evictions, arrivals,
// aborts and threads the engine met, its log-probs and entropies are those of the
// learner's forward bit for bit, and its tokens those of any other schedule.
//
// A round draws a workload and runs it under two random schedules; every result is
// compared with the learner's forward over randomly cut trees and batches.
// ORRERY_TEST_SEED=n adds a run with that seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <set>
#include <string>

#include "core/error.h"
#include "core/rng.h"
#include "learners/gradient.h"
#include "rollout/engine.h"
#include "rollout/scheduler.h"
#include "tests/rollout/tiny_model.h"

namespace orrery::learners {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ORRERY_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ORRERY_TEST_SANITIZED 1
#endif
#endif
#ifdef ORRERY_TEST_SANITIZED
constexpr int kMostRounds = 8;
#else
constexpr int kMostRounds = 100;
#endif
/// The debug device opens and closes its memory around every op, which takes longer
/// than such small ops; the emulator needs minutes for a round.
int rounds() {
  const Device device = testing_support::test_device();
  if (testing_support::is_emulated(device)) return 1;
  return device.type == DeviceType::kCpu ? kMostRounds : 6;
}
constexpr int kSchedulesPerRound = 2;
constexpr int64_t kMaxPrompt = 70, kMaxNewTokens = 40;

struct Model {
  const char* name;
  models::ModelConfig config;
};

models::ModelConfig base_config(const char* type, int64_t hidden, int64_t heads, int64_t kv_heads,
                                int64_t head_dim) {
  models::ModelConfig config;
  config.model_type = type;
  config.hidden_size = hidden;
  config.intermediate_size = hidden + 21;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = config.rope.head_dim = head_dim;
  config.vocab_size = 97;
  config.max_position_embeddings = 256;
  config.initializer_range = 0.3;
  return config;
}

models::ModelConfig scaled(models::ModelConfig config, kernels::RopeScaling::Type type) {
  config.rope.scaling.type = type;
  config.rope.scaling.factor = 4;
  config.rope.scaling.original_max_position_embeddings = 32;
  return config;
}

std::vector<Model> models() {
  models::ModelConfig llama = base_config("llama", 64, 4, 2, 16);
  models::ModelConfig llama3 =
      scaled(base_config("llama", 32, 4, 4, 8), kernels::RopeScaling::Type::kLlama3);
  models::ModelConfig linear =
      scaled(base_config("llama", 40, 4, 2, 12), kernels::RopeScaling::Type::kLinear);
  models::ModelConfig qwen2 = base_config("qwen2", 48, 6, 2, 8);
  models::ModelConfig qwen3 = base_config("qwen3", 32, 4, 2, 16);
  models::ModelConfig yarn =
      scaled(base_config("qwen3", 32, 2, 1, 24), kernels::RopeScaling::Type::kYarn);
  models::ModelConfig mistral = base_config("mistral", 64, 8, 2, 8);
  for (models::ModelConfig* tied : {&llama3, &qwen2, &qwen3}) tied->tie_word_embeddings = true;
  qwen2.qkv_bias = true;
  qwen3.qk_norm = yarn.qk_norm = true;
  return {{"llama", llama}, {"llama3_rope", llama3}, {"linear_rope", linear}, {"qwen2", qwen2},
          {"qwen3", qwen3}, {"qwen3_yarn", yarn},    {"mistral", mistral}};
}

template <class T, size_t n>
T pick(Philox& random, const T (&values)[n]) {
  return values[random.below(static_cast<uint32_t>(n))];
}

int64_t between(Philox& random, int64_t least, int64_t most) {
  return least + random.below(static_cast<uint32_t>(most - least + 1));
}

std::vector<int32_t> random_tokens(Philox& random, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab)));
  return tokens;
}

using Workload = std::vector<rollout::GenerateRequest>;

Workload random_workload(Philox& random, int64_t vocab, int64_t most_groups) {
  Workload groups(static_cast<size_t>(between(random, 1, most_groups)));
  const uint64_t seed = random(), step = random.below(1000), first_prompt = random();
  for (size_t i = 0; i < groups.size(); ++i) {
    rollout::GenerateRequest& r = groups[i];
    r.seed = seed;
    r.step = step;
    r.prompt_index = first_prompt + i;
    r.first_sample = pick(random, {0u, 0u, 3u});
    r.n = static_cast<uint32_t>(between(random, 1, 4));
    const int64_t at_an_edge = pick(random, {int64_t{1}, kernels::kKvBlock - 1, kernels::kKvBlock,
                                             kernels::kKvBlock + 1, 2 * kernels::kKvBlock});
    r.prompt = random_tokens(
        random, random.below(3) == 0 ? at_an_edge : between(random, 1, kMaxPrompt), vocab);
    if (i > 0 && random.below(6) == 0) r.prompt = groups[i - 1].prompt;
    r.max_new_tokens = between(random, 1, kMaxNewTokens);
    r.sampling.temperature = pick(random, {0.7f, 1.0f, 1.3f});
    r.sampling.top_k = pick(random, {0, 0, 5, 20});
    r.sampling.top_p = pick(random, {1.0f, 1.0f, 0.95f, 0.8f});
    r.sampling.min_p = pick(random, {0.0f, 0.0f, 0.05f});
    r.stop_token_ids = random_tokens(random, random.below(3), vocab);
  }
  return groups;
}

/// When the engine gets which samples: before its step `at`.
struct Arrival {
  int64_t at;
  size_t group;
  uint32_t first, n;  ///< of the group's samples
};

struct RandomSchedule {
  rollout::EngineConfig config;
  int engine_threads = 1, learner_threads = 1;
  std::vector<Arrival> arrivals;
  int64_t warm_up_steps = 0;  ///< of other work, which is then aborted
  int64_t abort_at =
      -1;  ///< step before which all is dropped; what is not finished is submitted again
  int64_t tree_rows = 0, batch_tokens = 0;  ///< the learner's cuts

  std::string describe() const {
    std::string text = fmt::format(
        "max_num_seqs {}, max_num_batched_tokens {}, kv_blocks {}, threads {} and {} (learner), "
        "warm-up {} steps, abort at step {}, trees of {} rows, batches of {} tokens, "
        "arrivals (step: group, samples)",
        config.max_num_seqs, config.max_num_batched_tokens, config.kv_blocks, engine_threads,
        learner_threads, warm_up_steps, abort_at, tree_rows, batch_tokens);
    for (const Arrival& a : arrivals)
      text += fmt::format(" {}: {}, {}..{};", a.at, a.group, a.first, a.first + a.n - 1);
    return text;
  }
};

RandomSchedule random_schedule(Philox& random, const Workload& workload) {
  RandomSchedule s;
  s.config.max_num_seqs = pick(random, {1, 3, 8, 16, 64});
  s.config.max_num_batched_tokens = pick(random, {1, 3, 8, 31, 32, 70, 200, 1000});
  for (const rollout::GenerateRequest& r : workload) {
    s.config.kv_blocks = std::max(
        s.config.kv_blocks, rollout::Scheduler::min_blocks(static_cast<int64_t>(r.prompt.size()),
                                                           r.max_new_tokens, r.n));
  }
  s.config.kv_blocks += pick(random, {0, 0, 1, 2, 4, 60});
  s.engine_threads = pick(random, {1, 1, 1, 2, 3, 4});
  s.learner_threads = pick(random, {1, 1, 1, 2, 3, 4});
  s.warm_up_steps = random.below(6) == 0 ? between(random, 1, 6) : 0;
  s.abort_at = random.below(5) == 0 ? between(random, 1, 20) : -1;
  s.tree_rows = pick(random, {1, 50, 100, 10000});
  s.batch_tokens = pick(random, {1, 60, 150, 300, 10000});
  const bool all_at_once = random.below(3) == 0;
  for (size_t g = 0; g < workload.size(); ++g) {
    const uint32_t n = workload[g].n;
    const uint32_t pieces = random.below(4) == 0 ? between(random, 1, n) : 1;
    for (uint32_t piece = 0; piece < pieces; ++piece) {
      const uint32_t first = n * piece / pieces, end = n * (piece + 1) / pieces;
      s.arrivals.push_back({all_at_once ? 0 : between(random, 0, 25), g, first, end - first});
    }
  }
  std::shuffle(s.arrivals.begin(), s.arrivals.end(), random);
  std::stable_sort(s.arrivals.begin(), s.arrivals.end(),
                   [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  return s;
}

using SampleId = std::pair<size_t, uint32_t>;  ///< group, sample counted from the group's first
using Results = std::map<SampleId, rollout::GenerateResult>;

/// What the schedules of a whole case met, so that a test that exercises nothing is
/// noticed.
struct Coverage {
  int64_t tokens = 0, preemptions = 0, aborted_samples = 0, multi_chunk = 0;
};

Results generate(const models::Transformer& model, const Workload& workload,
                 const RandomSchedule& schedule, Coverage& coverage) {
  const Context ctx = testing_support::test_context(schedule.engine_threads);
  rollout::Engine engine(ctx, model, nullptr, schedule.config);
  for (int64_t i = 0; i < schedule.warm_up_steps; ++i) {
    if (i % 2 == 0) {
      rollout::GenerateRequest other = workload[static_cast<size_t>(i) % workload.size()];
      other.seed += 17;
      engine.submit(std::move(other));
    }
    engine.step();
  }
  engine.abort_all();

  Results results;
  std::set<SampleId> in_flight;
  const auto submit = [&](size_t group, uint32_t first, uint32_t n) {
    rollout::GenerateRequest request = workload[group];
    request.first_sample += first;
    request.n = n;
    engine.submit(std::move(request));
    for (uint32_t i = first; i < first + n; ++i) in_flight.emplace(group, i);
  };
  size_t next = 0;
  for (int64_t step = 0; next < schedule.arrivals.size() || engine.has_work(); ++step) {
    for (; next < schedule.arrivals.size(); ++next) {
      const Arrival& a = schedule.arrivals[next];
      if (a.at > step && engine.has_work()) break;
      submit(a.group, a.first, a.n);
    }
    if (step == schedule.abort_at) {
      engine.abort_all();
      EXPECT_EQ(engine.stats().kv_blocks_in_use, 0);
      coverage.aborted_samples += static_cast<int64_t>(in_flight.size());
      for (const auto& [group, sample] : std::set<SampleId>(in_flight)) submit(group, sample, 1);
    }
    for (rollout::GenerateResult& r : engine.step()) {
      const auto group = static_cast<size_t>(r.prompt_index - workload.front().prompt_index);
      const SampleId id(group, r.sample_index - workload[group].first_sample);
      EXPECT_EQ(in_flight.erase(id), 1u)
          << "sample " << id.second << " of group " << group << " came twice";
      results.emplace(id, std::move(r));
    }
  }
  EXPECT_TRUE(in_flight.empty());
  EXPECT_EQ(engine.stats().kv_blocks_in_use, 0);
  coverage.preemptions += engine.stats().preemptions;
  coverage.multi_chunk += schedule.config.max_num_batched_tokens < kMaxPrompt ? 1 : 0;
  return results;
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

/// Compares every recorded value with the learner's forward. The first difference, or
/// "".
std::string difference_from_learner(const models::Transformer& model, const Workload& workload,
                                    const Results& results, const RandomSchedule& schedule) {
  std::map<float, std::vector<Tree>> trees;  // by temperature, which a batch has one of
  const std::vector<uint8_t> mask(kMaxNewTokens, 1);
  for (size_t g = 0; g < workload.size(); ++g) {
    std::vector<Leaf> leaves;
    for (uint32_t i = 0; i < workload[g].n; ++i) {
      Leaf leaf;
      leaf.tokens = results.at({g, i}).tokens;
      leaf.loss_mask = std::span(mask).first(leaf.tokens.size());
      leaf.prompt_index = g;
      leaf.sample_index = i;
      leaves.push_back(std::move(leaf));
    }
    std::vector<Tree>& list = trees[workload[g].sampling.temperature];
    for (Tree& tree : make_trees(workload[g].prompt, std::move(leaves), schedule.tree_rows))
      list.push_back(std::move(tree));
  }
  const Context ctx = testing_support::test_context(schedule.learner_threads);
  Arena arena(ctx.device);
  size_t compared = 0, tokens = 0;
  for (const auto& [id, result] : results) tokens += result.tokens.size();
  for (auto& [temperature, list] : trees) {
    std::vector<Tree*> order;
    for (Tree& tree : list) order.push_back(&tree);
    // A forward has no runs: every cut between trees will do.
    for (const MicroBatch& batch : pack(order, schedule.batch_tokens, 1)) {
      std::vector<float> logprobs(batch.targets.size()), entropies(batch.targets.size());
      batch_logprobs(ctx, model, temperature, batch, logprobs, entropies, arena);
      compared += logprobs.size();
      for (size_t i = 0; i < logprobs.size(); ++i) {
        const Leaf& leaf = *batch.loss_rows[i].leaf;
        const auto token = static_cast<size_t>(batch.loss_rows[i].token);
        const rollout::GenerateResult& r = results.at({leaf.prompt_index, leaf.sample_index});
        if (same_bits(r.logprobs[token], logprobs[i]) &&
            same_bits(r.entropies[token], entropies[i]))
          continue;
        return fmt::format(
            "group {} ({} prompt tokens, T {}) sample {} token {} of {}: "
            "the engine recorded log-prob {} and entropy {}, the learner has {} and {}",
            leaf.prompt_index, workload[leaf.prompt_index].prompt.size(), temperature,
            leaf.sample_index, token, r.tokens.size(), r.logprobs[token], r.entropies[token],
            logprobs[i], entropies[i]);
      }
    }
  }
  return compared == tokens ? "" : fmt::format("{} of {} tokens were compared", compared, tokens);
}

std::string difference_between(const Results& a, const Results& b) {
  if (a.size() != b.size()) return fmt::format("{} samples and {}", a.size(), b.size());
  for (const auto& [id, x] : a) {
    const rollout::GenerateResult& y = b.at(id);
    const bool same = x.tokens == y.tokens && x.finish_reason == y.finish_reason &&
                      std::ranges::equal(x.logprobs, y.logprobs, same_bits) &&
                      std::ranges::equal(x.entropies, y.entropies, same_bits);
    if (!same)
      return fmt::format("group {} sample {} differs from the first schedule's", id.first,
                         id.second);
  }
  return "";
}

/// Rounds under one seed; stops at the first difference.
void run_rounds(const models::Transformer& model, uint64_t seed, Coverage& coverage) {
  for (int round = 0; round < rounds(); ++round) {
    Philox random(seed, RngPurpose::kTest, static_cast<uint64_t>(round));
    const Workload workload = random_workload(random, model.config().vocab_size, 6);
    Results first;
    for (int i = 0; i < kSchedulesPerRound; ++i) {
      const RandomSchedule schedule = random_schedule(random, workload);
      const std::string where =
          fmt::format("seed {}, round {}, schedule {}: {}", seed, round, i, schedule.describe());
      SCOPED_TRACE(where);
      Results results = generate(model, workload, schedule, coverage);
      for (const auto& [id, result] : results)
        coverage.tokens += static_cast<int64_t>(result.tokens.size());
      ASSERT_EQ(difference_from_learner(model, workload, results, schedule), "");
      if (i == 0) {
        first = std::move(results);
      } else {
        ASSERT_EQ(difference_between(first, results), "");
      }
      ASSERT_FALSE(testing::Test::HasFailure());
    }
  }
}

class EngineVsLearner : public testing::TestWithParam<std::tuple<Model, DType>> {};

TEST_P(EngineVsLearner, RandomSchedulesChangeNoBit) {
  const auto& [named, dtype] = GetParam();
  models::Transformer model(named.config, testing_support::test_device(), dtype);
  testing_support::randomize(testing_support::test_context(), model, 5);
  Coverage coverage;
  run_rounds(model, 1, coverage);
  if (HasFatalFailure() || rounds() == 1) return;
  // Rare events must be in these schedules often, or the test says little.
  EXPECT_GT(coverage.tokens, 50 * rounds());
  EXPECT_GT(coverage.preemptions, rounds() / 2);
  EXPECT_GT(coverage.aborted_samples, rounds() / 4);
  EXPECT_GT(coverage.multi_chunk, rounds() / 2);
  if (const char* seed = std::getenv("ORRERY_TEST_SEED")) {
    run_rounds(model, std::strtoull(seed, nullptr, 10), coverage);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineVsLearner,
                         testing::Combine(testing::ValuesIn(models()),
                                          testing::ValuesIn(testing_support::test_dtypes())),
                         [](const auto& param_info) {
                           return std::string(std::get<0>(param_info.param).name) + "_" +
                                  std::string(dtype_name(std::get<1>(param_info.param)));
                         });

}  // namespace
}  // namespace orrery::learners
