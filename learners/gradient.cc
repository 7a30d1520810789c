#include "learners/gradient.h"

#include <algorithm>
#include <cmath>

#include "core/profile.h"
#include "core/transfer.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/lm_head.h"
#include "kernels/logprob.h"
#include "kernels/numerics.h"

namespace orrery::learners {
namespace {

template <class T>
Vec<T> device_vec(int64_t size, Arena& arena) {
  return {arena.alloc<T>(size), size};
}

/// The head over a batch's loss rows, whose targets and temperatures are checked and
/// uploaded. The inverse temperature is the rollout's 1 / T rounded once, as the engine
/// does.
kernels::LmHeadForward head_of(const Context& ctx, const models::Transformer& model,
                               const MicroBatch& batch, float temperature, ConstActMat hidden,
                               bool entropies, Arena& arena) {
  const int64_t rows = std::ssize(batch.targets);
  const Array<float> inv_temperature(rows, 1.0f / temperature);
  kernels::check_logprob_rows(batch.targets, inv_temperature, model.config().vocab_size);
  const auto targets = upload_into(ctx, arena, Span<const int32_t>(batch.targets));
  const auto inv_temperatures = upload_into(ctx, arena, Span<const float>(inv_temperature));
  return {.hidden = hidden,
          .weight = model.lm_head().packed(),
          .targets = targets,
          .inv_temperature = inv_temperatures,
          .logprobs = device_vec<float>(rows, arena),
          .entropies = entropies ? device_vec<float>(rows, arena) : Vec<float>(),
          .run_ends = batch.loss_run_ends};
}

/// Takes from `arena`, which measures, what head_of and the walk over these rows take.
void measure_head(const models::Transformer& model, int64_t rows, Arena& arena) {
  for (int i = 0; i < 4; ++i) arena.alloc<float>(rows);
  const ArenaScope walk(arena);
  kernels::measure_lm_head(model.compute_dtype(), model.config().vocab_size, rows, arena);
}

ActMat hidden_of(const models::Transformer& model, const MicroBatch& batch, Arena& arena) {
  return arena.act_mat(model.compute_dtype(), std::ssize(batch.output_rows),
                       model.config().hidden_size);
}

Mat<float> dhidden_of(const models::Transformer& model, const MicroBatch& batch, Arena& arena) {
  return arena.mat<float>(std::ssize(batch.output_rows), model.config().hidden_size);
}

/// But for what the head computes.
LossToken loss_token(const MicroBatch::LossRow& row) {
  const Leaf& leaf = *row.leaf;
  LossToken token;
  if (!leaf.old_logprobs.empty()) token.old_logp = leaf.old_logprobs[row.token];
  if (!leaf.ref_logprobs.empty()) token.ref_logp = leaf.ref_logprobs[row.token];
  if (!leaf.advantages.empty()) token.advantage = leaf.advantages[row.token];
  if (!leaf.is_weights.empty()) token.is_weight = leaf.is_weights[row.token];
  return token;
}

/// Clamps and comparisons turn some of what is not finite into an ordinary loss or a
/// derivative of 0, so inputs are looked at as well as results.
bool is_finite(const LossToken& token, float weight, const TokenLoss& loss, int64_t terms) {
  for (const float value :
       {token.logp, token.entropy, token.old_logp, token.ref_logp, token.advantage, token.is_weight,
        token.coefficient, weight, loss.dlogp}) {
    if (!std::isfinite(value)) return false;
  }
  return std::all_of(loss.terms, loss.terms + terms,
                     [](float value) { return std::isfinite(value); });
}

/// Adds one token to the sums.
void add_token(LossSums& sums, const MicroBatch::LossRow& row, const TokenEvaluation& evaluation) {
  const auto& [token, _, loss] = evaluation;
  const Leaf& leaf = *row.leaf;
  const double weight = leaf.weight;
  sums.tokens += 1;
  sums.loss += weight * loss.loss;
  sums.entropy += weight * token.entropy;
  const float* value = loss.terms;
  for (TermSum& term : sums.terms) {
    term.sum += term.term.mean == Mean::kAsLoss ? weight * *value : double{*value};
    ++value;
  }
  const bool compared = !leaf.old_logprobs.empty();
  const TokenPlace place{leaf.prompt_index,
                         leaf.sample_index,
                         row.token,
                         leaf.tokens[row.token],
                         compared ? token.old_logp : token.logp,
                         token.logp};
  if (compared) sums.compare(token.logp, token.old_logp);
  if (leaf.exact && !same_bits(token.logp, token.old_logp)) sums.mismatches.add(place);
  if (!is_finite(token, leaf.weight, loss, std::ssize(sums.terms))) sums.not_finite.add(place);
}

/// Has the loss couple the tokens of a batch's responses, of which the head has
/// computed these values. The rows of a response stand together, in order.
void couple_tokens(const Loss& loss, const MicroBatch& batch, Span<const float> logprobs,
                   Span<const float> entropies, Span<LossToken> tokens) {
  for (int64_t i = 0; i < tokens.size(); ++i) {
    tokens[i].logp = logprobs[i];
    tokens[i].entropy = entropies[i];
  }
  for (int64_t begin = 0, end = 0; begin < tokens.size(); begin = end) {
    while (end < tokens.size() && batch.loss_rows[end].leaf == batch.loss_rows[begin].leaf) ++end;
    loss.couple(tokens.subspan(begin, end - begin));
  }
}

/// A batch's loss rows as the loss is to find them. What the head computes is set where
/// they are evaluated.
Vec<TokenEvaluation> upload_tokens(const Context& ctx, const MicroBatch& batch,
                                   Span<const LossToken> tokens, Arena& arena) {
  Array<TokenEvaluation> rows(tokens.size());
  for (int64_t i = 0; i < rows.size(); ++i) {
    rows[i].token = tokens[i];
    rows[i].weight = batch.loss_rows[i].leaf->weight;
  }
  return upload_into(ctx, arena, Span<const TokenEvaluation>(rows));
}

/// Adds a batch's rows, which have been evaluated, to the sums.
void add_tokens(const Context& ctx, const MicroBatch& batch, Vec<const TokenEvaluation> tokens,
                LossSums& sums) {
  Array<TokenEvaluation> host(tokens.size);
  download(ctx, Span<TokenEvaluation>(host), tokens);
  for (int64_t i = 0; i < host.size(); ++i) add_token(sums, batch.loss_rows[i], host[i]);
}

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

void ShardPass::measure(const models::Transformer& model, std::span<const MicroBatch> batches,
                        Arena& arena) {
  const ArenaScope scope(arena);
  int64_t rows = 0, most = 0;
  for (const MicroBatch& batch : batches) {
    rows += std::ssize(batch.tokens);
    most = std::max<int64_t>(most, std::ssize(batch.tokens));
  }
  arena.mat<float>(rows, model.config().hidden_size);
  for (const MicroBatch& batch : batches) {
    const ArenaScope batch_scope(arena);
    hidden_of(model, batch, arena);
    dhidden_of(model, batch, arena);
    models::measure_forward_train(model, batch.view(), arena);
    arena.alloc<TokenEvaluation>(std::ssize(batch.loss_rows));
    measure_head(model, std::ssize(batch.output_rows), arena);
    models::TransformerBackward::measure(model, batch.view(), arena);
  }
  arena.alloc<int32_t>(most);  // the embedding's backward
}

bool ShardPass::forward() {
  backward_.reset();
  batch_scope_.reset();
  if (batch_ != nullptr) row_ += std::ssize(batch_->tokens);
  if (batches_.empty() || (batch_ != nullptr && is_last_batch())) return false;
  batch_ = batch_ == nullptr ? &batches_.front() : batch_ + 1;
  batch_scope_.emplace(arena_);
  hidden_ = hidden_of(model_, *batch_, arena_);
  dhidden_ = dhidden_of(model_, *batch_, arena_);
  plan_ = plan_training(ctx_, model_, batch_->view(), arena_);
  activations_ = transformer_forward_train(ctx_, model_, plan_, hidden_, arena_);
  return true;
}

void ShardPass::head_backward(const Objective& objective, LossSums& sums) {
  const Loss& loss = *objective.loss;
  const kernels::LmHeadForward head =
      head_of(ctx_, model_, *batch_, objective.temperature, hidden_, /*entropies=*/true, arena_);
  Array<LossToken> loss_tokens;
  for (const MicroBatch::LossRow& row : batch_->loss_rows) loss_tokens.push_back(loss_token(row));
  if (loss.is_coupled()) {
    kernels::lm_head_logprob(ctx_, head, arena_);
    Array<float> logprobs(head.logprobs.size), entropies(head.entropies.size);
    download(ctx_, Span<float>(logprobs), head.logprobs);
    download(ctx_, Span<float>(entropies), head.entropies);
    couple_tokens(loss, *batch_, logprobs, entropies, Span<LossToken>(loss_tokens));
  }
  const Vec<TokenEvaluation> tokens = upload_tokens(ctx_, *batch_, loss_tokens, arena_);
  const Mat<float> dhead = model_.lm_head().weight().mat(gradients_);
  kernels::LmHeadWalk walk(ctx_, head, arena_);
  while (const auto chunk = walk.next()) {
    loss.evaluate(ctx_, {.logprobs = chunk->logprobs,
                         .entropies = chunk->entropies,
                         .tokens = tokens.part(chunk->begin, chunk->logprobs.size),
                         .dlogp = chunk->dlogp,
                         .dentropy = chunk->dentropy});
    walk.backward(*chunk, dhidden_, dhead, /*accumulate=*/!is_first_batch());
  }
  add_tokens(ctx_, *batch_, tokens, sums);
  if (is_first_batch() && dhidden_.rows == 0) zero(as_vec(dhead));
}

std::optional<int64_t> ShardPass::backward_layer() {
  if (!backward_) {
    const int64_t rows = std::ssize(batch_->tokens);
    backward_.emplace(ctx_, model_, plan_, activations_, dhidden_, gradients_,
                      /*accumulate=*/!is_first_batch(), dembedding_.row_range(row_, row_ + rows),
                      arena_);
  }
  const std::optional<int64_t> final_from = backward_->next();
  if (final_from && !is_last_batch()) return gradients_.size();
  return final_from;
}

void ShardPass::zero(Vec<float> part) const {
  const ProfileOpScope profile(ctx_, "zero gradient", 0, 0);  // the fill adds its own
  kernels::fill(ctx_, {.y = part});
}

void ShardPass::embedding_backward() {
  if (batches_.empty()) return zero(gradients_.memory());
  const Mat<float> dtable = model_.table().embedding().mat(gradients_);
  // What follows adds to the rows of the tokens alone. A tied head has written to all.
  if (!model_.config().tie_word_embeddings) zero(as_vec(dtable));
  models::zero_gaps(ctx_, model_.table(), 0, gradients_);
  const bool has_sum_runs = kernels::numerics_class(ctx_.device, model_.compute_dtype()) ==
                            kernels::NumericsClass::kDot16;
  int64_t row = 0;
  for (const MicroBatch& batch : batches_) {
    const int64_t rows = std::ssize(batch.tokens);
    const ArenaScope scope(arena_);
    const Vec<const int32_t> ids = upload_into(ctx_, arena_, Span<const int32_t>(batch.tokens));
    Span<const int64_t> runs;
    if (has_sum_runs && rows > 0)
      runs = batch.run_ends.empty() ? Span<const int64_t>(&rows, 1) : batch.run_ends;
    kernels::embedding_backward(ctx_, {.dtable = dtable,
                                       .dout = dembedding_.row_range(row, row + rows),
                                       .ids = ids,
                                       .run_ends = runs});
    row += rows;
  }
}

void measure_logprobs(const models::Transformer& model, const MicroBatch& batch, Arena& arena) {
  const ArenaScope scope(arena);
  hidden_of(model, batch, arena);
  models::measure_forward_train(model, batch.view(), arena);
  measure_head(model, std::ssize(batch.output_rows), arena);
}

void batch_logprobs(const Context& ctx, const models::Transformer& model, float temperature,
                    const MicroBatch& batch, std::span<float> logprobs, std::span<float> entropies,
                    Arena& arena) {
  const ArenaScope scope(arena);
  const ActMat hidden = hidden_of(model, batch, arena);
  const models::BatchPlan plan = models::plan_training(ctx, model, batch.view(), arena);
  models::transformer_forward_train(ctx, model, plan, hidden, arena);
  const kernels::LmHeadForward head =
      head_of(ctx, model, batch, temperature, hidden, !entropies.empty(), arena);
  kernels::lm_head_logprob(ctx, head, arena);
  download(ctx, Span<float>(logprobs), head.logprobs);
  download(ctx, Span<float>(entropies), head.entropies);
}

void reference_logprobs(const Context& ctx, const models::Transformer& reference, float temperature,
                        std::span<const MicroBatch> batches, Arena& arena) {
  for (const MicroBatch& batch : batches) {
    const ArenaScope scope(arena);
    Array<float> logprobs(std::ssize(batch.output_rows));
    batch_logprobs(ctx, reference, temperature, batch, Span<float>(logprobs), {}, arena);
    for (int64_t i = 0; i < logprobs.size(); ++i) {
      const auto& [leaf, token] = batch.loss_rows[i];
      leaf->ref_logprobs.resize(leaf->tokens.size(), 0.0f);
      leaf->ref_logprobs[token] = logprobs[i];
    }
  }
}

}  // namespace orrery::learners
