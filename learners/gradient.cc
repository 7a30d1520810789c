#include "learners/gradient.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "kernels/embedding.h"
#include "kernels/lm_head.h"

namespace orrery::learners {
namespace {

/// Loss rows' inverse temperatures: the rollout's 1 / T rounded once, as the engine
/// does.
std::span<const float> inverse_temperatures(float temperature, size_t rows, Arena& arena) {
  const auto values = arena.span<float>(static_cast<int64_t>(rows));
  std::fill(values.begin(), values.end(), 1.0f / temperature);
  return values;
}

/// Adds one token to the sums and returns its derivative with respect to logp and to
/// the entropy (weighted).
struct RowLoss {
  const Objective& objective;
  LossSums& sums;

  std::pair<float, float> operator()(const MicroBatch::Source& source, float logp,
                                     float entropy) const {
    const Leaf& leaf = *source.leaf;
    const float weight = leaf.weight;
    sums.tokens += 1;
    sums.entropy += static_cast<double>(weight) * entropy;
    if (objective.sft) {
      sums.loss += -static_cast<double>(weight) * logp;
      check_finite(source, logp, logp, {logp, entropy, weight});
      return {-weight, 0.0f};
    }
    const auto token = static_cast<size_t>(source.token);
    const float old_logp = leaf.old_logprobs[token];
    const float ref_logp = leaf.ref_logprobs.empty() ? 0.0f : leaf.ref_logprobs[token];
    const float is_weight = leaf.is_weights.empty() ? 1.0f : leaf.is_weights[token];
    const TokenLossTerms terms =
        policy_loss(objective.policy, logp, old_logp, ref_logp, leaf.advantage, is_weight);
    if (leaf.exact && !same_bits(logp, old_logp))
      sums.mismatches.add(place(source, old_logp, logp));
    check_finite(source, old_logp, logp,
                 {logp, old_logp, ref_logp, is_weight, leaf.advantage, weight, entropy,
                  terms.pg_loss, terms.kl, terms.dlogp});
    sums.pg_loss += static_cast<double>(weight) * terms.pg_loss;
    sums.loss += static_cast<double>(weight) *
                 (static_cast<double>(terms.pg_loss) +
                  static_cast<double>(objective.policy.kl_loss_coef) * terms.kl +
                  static_cast<double>(terms.dentropy) * entropy);
    sums.kl += static_cast<double>(weight) * terms.kl;
    sums.ppo_kl += -static_cast<double>(terms.log_ratio);
    sums.clipped += terms.clipped ? 1 : 0;
    sums.clipped_lower += terms.clipped_lower ? 1 : 0;
    sums.compare(logp, old_logp);
    return {weight * terms.dlogp, weight * terms.dentropy};
  }

  static TokenPlace place(const MicroBatch::Source& source, float recorded, float recomputed) {
    const Leaf& leaf = *source.leaf;
    return {leaf.prompt_index, leaf.sample_index,
            source.token,      leaf.tokens[static_cast<size_t>(source.token)],
            recorded,          recomputed};
  }

  /// Clamps and comparisons turn some of what is not finite into an ordinary loss or a
  /// derivative of 0, so inputs are looked at as well as results.
  void check_finite(const MicroBatch::Source& source, float recorded, float recomputed,
                    std::initializer_list<float> values) const {
    for (const float value : values) {
      if (std::isfinite(value)) continue;
      sums.not_finite.add(place(source, recorded, recomputed));
      return;
    }
  }
};

}  // namespace

ShardPass::ShardPass(const Context& ctx, const models::Transformer& model,
                     std::span<const MicroBatch> batches, const FlatView& gradients, Arena& arena)
    : ctx_(ctx),
      model_(model),
      batches_(batches),
      gradients_(gradients),
      arena_(arena),
      scope_(arena) {
  int64_t rows = 0;
  for (const MicroBatch& batch : batches) rows += std::ssize(batch.tokens);
  dembedding_ = arena.mat<float>(rows, model.config().hidden_size);
}

bool ShardPass::forward() {
  backward_.reset();
  batch_scope_.reset();
  if (batch_ != nullptr) row_ += std::ssize(batch_->tokens);
  if (batches_.empty() || (batch_ != nullptr && is_last_batch())) return false;
  batch_ = batch_ == nullptr ? &batches_.front() : batch_ + 1;
  batch_scope_.emplace(arena_);
  const int64_t rows = std::ssize(batch_->output_rows), d = model_.config().hidden_size;
  hidden_ = arena_.mat<float>(rows, d);
  dhidden_ = arena_.mat<float>(rows, d);
  logprobs_ = arena_.span<float>(rows);
  entropies_ = arena_.span<float>(rows);
  activations_ = transformer_forward_train(ctx_, model_, batch_->view(), hidden_, arena_);
  return true;
}

void ShardPass::head_backward(const Objective& objective, LossSums& sums) {
  const models::ModelConfig& config = model_.config();
  const RowLoss row_loss{objective, sums};
  const kernels::LmHeadRows rows{
      hidden_, batch_->targets,
      inverse_temperatures(objective.temperature, std::ssize(batch_->targets), arena_)};
  const Mat<float> dhead(gradients_.at(model_.table().lm_head()), config.vocab_size,
                         config.hidden_size);
  kernels::LmHeadWalk walk(ctx_, rows, model_.lm_head(), logprobs_, entropies_, arena_);
  while (const auto chunk = walk.next()) {
    for (int64_t i = 0; i < chunk->logprobs.size(); ++i) {
      std::tie(chunk->dlogp[i], chunk->dentropy[i]) =
          row_loss(batch_->sources[chunk->begin + i], chunk->logprobs[i], chunk->entropies[i]);
    }
    walk.backward(*chunk, dhidden_, dhead);
  }
}

std::optional<int64_t> ShardPass::backward_layer() {
  if (!backward_) {
    const int64_t rows = std::ssize(batch_->tokens);
    backward_.emplace(ctx_, model_, batch_->view(), activations_, dhidden_, gradients_,
                      dembedding_.row_range(row_, row_ + rows), arena_);
  }
  const std::optional<int64_t> final_from = backward_->next();
  if (final_from && !is_last_batch()) return gradients_.size();
  return final_from;
}

void ShardPass::embedding_backward() {
  const models::ModelConfig& config = model_.config();
  const Mat<float> dtable(gradients_.at(model_.table().embedding()), config.vocab_size,
                          config.hidden_size);
  int64_t row = 0;
  for (const MicroBatch& batch : batches_) {
    const int64_t rows = std::ssize(batch.tokens);
    kernels::embedding_backward(ctx_, dtable, dembedding_.row_range(row, row + rows), batch.tokens);
    row += rows;
  }
}

void batch_logprobs(const Context& ctx, const models::Transformer& model, float temperature,
                    const MicroBatch& batch, std::span<float> logprobs, std::span<float> entropies,
                    Arena& arena) {
  const ArenaScope scope(arena);
  const Mat<float> hidden =
      arena.mat<float>(static_cast<int64_t>(batch.output_rows.size()), model.config().hidden_size);
  models::transformer_forward_train(ctx, model, batch.view(), hidden, arena);
  const kernels::LmHeadRows head{hidden, batch.targets,
                                 inverse_temperatures(temperature, batch.targets.size(), arena)};
  kernels::lm_head_logprob(ctx, logprobs, entropies, head, model.lm_head(), arena);
}

void reference_logprobs(const Context& ctx, const models::Transformer& reference, float temperature,
                        std::span<const MicroBatch> batches, Arena& arena) {
  for (const MicroBatch& batch : batches) {
    const ArenaScope scope(arena);
    const auto logprobs = arena.span<float>(static_cast<int64_t>(batch.output_rows.size()));
    batch_logprobs(ctx, reference, temperature, batch, logprobs, {}, arena);
    for (size_t i = 0; i < logprobs.size(); ++i) {
      Leaf& leaf = *batch.sources[i].leaf;
      leaf.ref_logprobs.resize(leaf.tokens.size(), 0.0f);
      leaf.ref_logprobs[static_cast<size_t>(batch.sources[i].token)] = logprobs[i];
    }
  }
}

}  // namespace orrery::learners
