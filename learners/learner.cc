#include "learners/learner.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/fault.h"
#include "core/profile.h"
#include "core/timer.h"

namespace orrery::learners {
namespace {

/// What makes the learner's temporaries smaller: the first cuts no tree, and some are
/// of all rows of a shard.
constexpr const char* kArenaKeys =
    "actor.ppo_max_token_len_per_gpu, actor.prefix_tree_max_tokens or actor.ppo_mini_batch_size";

int64_t shards_per_rank(const LearnerConfig& config) {
  const int ranks = config.mesh.size(comm::Axis::kDp);
  ORRERY_CHECK(config.gradient_shards % ranks == 0, "{} gradient shards on {} learners",
               config.gradient_shards, ranks);
  return config.gradient_shards / ranks;
}

/// Adds the shards' sums in shard order, the same on every rank.
LossSums gather_sums(comm::Communicator& comm, Span<const LossSums> mine, Span<const Term> terms) {
  std::string bytes;
  for (const LossSums& sums : mine) sums.append_to(bytes);
  LossSums total(terms);
  for (const std::string& part : comm.all_gather_bytes(bytes)) {
    for (std::string_view rest = part; !rest.empty();) {
      LossSums sums(terms);
      sums.take_from(rest);
      total.add(sums);
    }
  }
  return total;
}

/// Whether a shard's gradient is written layer by layer: several batches add up late.
bool is_by_region(const std::vector<MicroBatch>& shard) { return shard.size() <= 1; }

std::vector<double> tokens_of_ranks(std::span<const Tree> trees,
                                    const std::vector<std::vector<int64_t>>& shards, int ranks) {
  std::vector<double> result(ranks, 0.0);
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    for (const int64_t tree : shards[shard]) {
      for (const Leaf& leaf : trees[tree].leaves) {
        result[shard * result.size() / shards.size()] +=
            static_cast<double>(trees[tree].prompt.size() + leaf.tokens.size());
      }
    }
  }
  return result;
}

double step_flops(const models::ModelConfig& config,
                  std::span<const std::vector<MicroBatch>> shards) {
  double total = 0;
  for (const auto& batches : shards) {
    for (const MicroBatch& batch : batches) {
      const models::ForwardFlops f =
          models::forward_flops(config, batch.segments, std::ssize(batch.output_rows));
      total += 3 * (f.matmul + f.attention_causal + f.head);
    }
  }
  return total;
}

}  // namespace

std::string skipped_update_text(const UpdateResult& result) {
  const TokenCount& bad = result.sums.not_finite;
  if (bad.count == 0)
    return fmt::format("the gradient norm is {}: this update was skipped, weights are unchanged",
                       result.grad_norm);
  return fmt::format(
      "{} of the mini-batch's {} loss tokens have a log-prob, weight, "
      "entropy or loss that is not finite, first prompt {} sample {} token {} (id {}; "
      "log-prob recorded {}, computed {}): this update was skipped, weights are unchanged",
      static_cast<int64_t>(bad.count), static_cast<int64_t>(result.sums.tokens),
      bad.first.prompt_index, bad.first.sample_index, bad.first.position, bad.first.token_id,
      bad.first.recorded, bad.first.recomputed);
}

Learner::Learner(const Context& ctx, models::Transformer& model, comm::Communicator& comm,
                 const LearnerConfig& config)
    : ctx_(ctx),
      model_(model),
      config_(config),
      dp_(config.mesh, comm::Axis::kDp, comm),
      optimizer_(ctx.device, model.table().flat_size(), dp_.size(), dp_.rank()),
      shard_tree_(ctx.device, model.table().regions(), shards_per_rank(config)),
      arena_(ctx.device) {
  const models::Module& module = model.table().module();
  ORRERY_CHECK(module.trainable, "a learner of the module '{}', which is not trainable",
               module.name);
}

void Learner::set_reference(const models::Transformer* reference) {
  if (reference != nullptr) {
    const models::Module& module = reference->table().module();
    ORRERY_CHECK(!module.trainable, "the module '{}' as a reference, and it is trainable",
                 module.name);
  }
  reference_ = reference;
}

Learner::ShardWork Learner::assign_to_shards(std::span<Tree> trees) const {
  ShardWork work;
  std::vector<int64_t> rows;
  for (const Tree& tree : trees) {
    rows.push_back(tree.rows());
    work.rows += rows.back();
  }
  work.assignment = assign_shards(rows, config_.gradient_shards);
  const int64_t count = shards_per_rank(config_);
  work.first = count * dp_.rank();
  for (int64_t i = 0; i < count; ++i) {
    std::vector<Tree*> mine;
    for (const int64_t tree : work.assignment[work.first + i]) mine.push_back(&trees[tree]);
    work.batches.push_back(pack(mine, config_.max_token_len, min_run_rows(model_.compute_dtype())));
  }
  return work;
}

void Learner::release_memory() {
  lent_ = {};
  arena_ = Arena(ctx_.device);
  shard_tree_.release_memory();
}

void Learner::use_memory(Vec<float> memory) {
  lent_ = memory;
  arena_ = Arena::over(ctx_.device, memory);
  shard_tree_.use_memory(memory, /*by_region=*/true);  // says so now where it is too small
}

Vec<float> Learner::idle_memory() { return lent_.empty() ? shard_tree_.memory() : lent_; }

void Learner::reserve_logprobs(Span<const std::vector<MicroBatch>> shards) {
  if (!lent_.empty()) arena_ = Arena::over(ctx_.device, lent_);
  Arena count = Arena::measuring(ctx_.device);
  for (const auto& batches : shards) {
    for (const MicroBatch& batch : batches) measure_logprobs(model_, batch, count);
  }
  arena_.reserve(count.peak(), "a forward of the learner", kArenaKeys);
}

void Learner::reserve_update(Span<const std::vector<MicroBatch>> shards, bool reference) {
  Arena count = Arena::measuring(ctx_.device);
  for (const auto& batches : shards) {
    if (!reference) break;
    for (const MicroBatch& batch : batches) measure_logprobs(*reference_, batch, count);
  }
  OrderedReduceScatter::measure(dp_.size(), optimizer_.plan(), config_.fast_reduce, count);
  for (const auto& batches : shards) ShardPass::measure(model_, batches, count);
  if (!lent_.empty()) {
    const bool by_region = std::ranges::all_of(shards, is_by_region);
    arena_ = Arena::over(ctx_.device, shard_tree_.use_memory(lent_, by_region));
  }
  arena_.reserve(count.peak(), "an update of the learner", kArenaKeys);
}

std::vector<std::vector<float>> Learner::logprobs(std::span<Tree> trees, float temperature) {
  const ShardWork work = assign_to_shards(trees);
  reserve_logprobs(work.batches);
  std::string mine;  // of this rank's loss rows, in order
  for (const auto& shard : work.batches) {
    for (const MicroBatch& batch : shard) {
      const ArenaScope scope(arena_);
      Array<float> values(std::ssize(batch.output_rows));
      batch_logprobs(ctx_, model_, temperature, batch, Span<float>(values), {}, arena_);
      mine.append(reinterpret_cast<const char*>(values.data()), Span(values).size_bytes());
      progress_();
    }
  }
  std::string all;
  for (const std::string& part : dp_.comm().all_gather_bytes(mine)) all += part;

  std::vector<std::vector<float>> result;
  std::vector<size_t> first_leaf;
  for (const Tree& tree : trees) {
    first_leaf.push_back(result.size());
    for (const Leaf& leaf : tree.leaves) result.emplace_back(leaf.tokens.size(), 0.0f);
  }
  size_t at = 0;
  for (const auto& shard : work.assignment) {
    for (const int64_t tree : shard) {
      for (size_t i = 0; i < trees[tree].leaves.size(); ++i) {
        const Leaf& leaf = trees[tree].leaves[i];
        std::vector<float>& values = result[first_leaf[tree] + i];
        for (size_t token = 0; token < values.size(); ++token) {
          if (leaf.loss_mask[token] == 0) continue;
          ORRERY_CHECK(at + sizeof(float) <= all.size(), "{} bytes of log-probs are too few",
                       all.size());
          std::memcpy(&values[token], all.data() + at, sizeof(float));
          at += sizeof(float);
        }
      }
    }
  }
  ORRERY_CHECK(at == all.size(), "{} bytes of log-probs for {}", all.size(), at);
  return result;
}

void Learner::compute_reference(Span<const std::vector<MicroBatch>> batches,
                                const Objective& objective, UpdateResult& result) {
  const ScopedTimer timer(result.reference_seconds);
  for (const auto& shard : batches) {
    reference_logprobs(ctx_, *reference_, objective.temperature, shard, arena_);
    progress_();
  }
}

void Learner::take_step(const kernels::AdamWParams& params, double clip_grad,
                        UpdateResult& result) {
  fault_point(FaultPoint::kLearnerUpdate);
  if (result.sums.not_finite.count > 0) {  // alike on every rank
    result.grad_norm = std::numeric_limits<double>::quiet_NaN();
    result.skipped = true;
  } else {
    const ScopedTimer timer(result.optimizer_seconds);
    const ProfilePhaseScope phase(ctx_, "optimizer");
    const ShardedAdamW::Result step = optimizer_.step(ctx_, dp_.comm(), model_.write_parameters(),
                                                      shard_tree_.result(), params, clip_grad);
    result.grad_norm = step.grad_norm;
    result.skipped = step.skipped;
  }
  const ScopedTimer timer(result.pack_seconds);
  if (model_.is_stale()) model_.pack(ctx_);
}

UpdateResult Learner::update(std::span<Tree> trees, const Objective& objective,
                             kernels::AdamWParams params, double clip_grad) {
  UpdateResult result;
  result.lr = params.lr;
  const ShardWork work = assign_to_shards(trees);
  result.rows = work.rows;
  result.rank_tokens = tokens_of_ranks(trees, work.assignment, dp_.size());
  const bool needs_reference = reference_ != nullptr && objective.loss->uses_reference();
  reserve_update(work.batches, needs_reference);
  if (needs_reference) compute_reference(work.batches, objective, result);

  Array<LossSums> sums(std::ssize(work.batches), LossSums(objective.loss->terms()));
  OrderedReduceScatter exchange(ctx_, dp_.comm(), shard_tree_.result(), optimizer_.plan(),
                                config_.fast_reduce, arena_);
  {
    const ScopedTimer timer(result.gradient_seconds);
    shard_tree_.begin(ctx_);
    for (int64_t s = 0; s < sums.size(); ++s) {
      const std::vector<MicroBatch>& shard = work.batches[s];
      ShardPass pass(ctx_, model_, shard, shard_tree_.begin_shard(is_by_region(shard)), arena_);
      while (pass.forward()) {
        pass.head_backward(objective, sums[s]);
        {
          const ProfilePhaseScope phase(ctx_, "backward");
          while (const auto final_from = pass.backward_layer()) {
            shard_tree_.merge(*final_from);
            exchange.send(shard_tree_.final_from());
          }
        }
        progress_();
      }
      pass.embedding_backward();
      shard_tree_.end_shard();
      exchange.send(shard_tree_.final_from());
    }
  }
  {
    const ScopedTimer timer(result.reduce_seconds);
    const ProfilePhaseScope phase(ctx_, "reduce");
    exchange.finish();
    result.sums = gather_sums(dp_.comm(), sums, objective.loss->terms());
    if (objective.verify_logprobs && result.sums.mismatches.count > 0) {
      result.refused = true;  // alike on every rank
      return result;
    }
  }
  take_step(params, clip_grad, result);
  double flops[1] = {step_flops(model_.config(), work.batches)};
  dp_.comm().all_reduce_sum(std::span<double>(flops));
  result.model_flops = flops[0];
  return result;
}

size_t Learner::memory_bytes() const {
  const size_t temporaries = lent_.empty() ? arena_.capacity() : 0;
  return optimizer_.memory_bytes() + shard_tree_.memory_bytes() + temporaries;
}

}  // namespace orrery::learners
