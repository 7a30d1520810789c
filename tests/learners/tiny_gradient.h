// The gradient of a small model over whole batches, for the learner's tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "learners/gradient.h"
#include "tests/learners/tiny_model.h"
#include "tests/support/device_values.h"

namespace orrery::testing_support {

/// The objective's gradient over the batches, written to `gradient`; adds to `sums`.
inline void shard_gradient(const Context& ctx, const models::Transformer& model,
                           const learners::Objective& objective,
                           std::span<const learners::MicroBatch> batches, Vec<float> gradient,
                           learners::LossSums& sums, Arena& arena) {
  learners::ShardPass pass(ctx, model, batches, gradient, arena);
  while (pass.forward()) {
    pass.head_backward(objective, sums);
    while (pass.backward_layer()) {
    }
  }
  pass.embedding_backward();
}

/// What a loss makes of tokens, on the device under test.
inline std::vector<learners::TokenLoss> losses_of(const learners::Loss& loss,
                                                  std::span<const learners::LossToken> tokens) {
  const Context ctx = test_context();
  const int64_t rows = std::ssize(tokens);
  std::vector<float> logprob_values, entropy_values;
  Array<learners::TokenEvaluation> evaluations(rows);
  for (int64_t i = 0; i < rows; ++i) {
    logprob_values.push_back(tokens[i].logp);
    entropy_values.push_back(tokens[i].entropy);
    evaluations[i].token = tokens[i];
  }
  Arena arena(ctx.device);
  const auto device = upload_into(ctx, arena, Span<const learners::TokenEvaluation>(evaluations));
  const DeviceFloats logprobs(ctx, logprob_values), entropies(ctx, entropy_values);
  const DeviceFloats derivatives(ctx, std::vector<float>(static_cast<size_t>(2 * rows)));
  loss.evaluate(ctx, {.logprobs = logprobs.vec(),
                      .entropies = entropies.vec(),
                      .tokens = device,
                      .dlogp = derivatives.vec().part(0, rows),
                      .dentropy = derivatives.vec().part(rows, rows)});
  download(ctx, Span<learners::TokenEvaluation>(evaluations), device);
  std::vector<learners::TokenLoss> losses;
  for (const learners::TokenEvaluation& evaluation : evaluations) losses.push_back(evaluation.loss);
  return losses;
}

struct GradientResult {
  std::vector<float> gradient;
  learners::LossSums sums;
};

inline GradientResult gradient_of(const models::Transformer& model,
                                  const learners::Objective& objective,
                                  std::vector<learners::Tree>& trees, int64_t max_tokens,
                                  int threads = 1) {
  const Context ctx = test_context(threads);
  Arena arena(ctx.device);
  // What is there before must not matter.
  const DeviceFloats gradient(ctx,
                              std::vector<float>(static_cast<size_t>(model.table().flat_size()),
                                                 std::numeric_limits<float>::quiet_NaN()));
  GradientResult result{{}, learners::LossSums(objective.loss->terms())};
  const auto order = pointers(trees);
  const auto batches =
      learners::pack(order, max_tokens, learners::min_run_rows(model.compute_dtype()));
  shard_gradient(ctx, model, objective, batches, gradient.vec(), result.sums, arena);
  result.gradient = gradient.values();
  return result;
}

/// The sum of a term, by its name.
inline double term_sum(const learners::LossSums& sums, std::string_view name) {
  for (const learners::TermSum& term : sums.terms) {
    if (term.term.name == name) return term.sum;
  }
  ADD_FAILURE() << "no term " << name;
  return 0;
}

/// Compares with a directional derivative along each parameter's own gradient, which is
/// large against float noise.
inline void expect_finite_differences(models::Transformer& model,
                                      const learners::Objective& objective,
                                      std::vector<learners::Tree>& trees,
                                      std::span<const float> gradient) {
  const Context ctx = test_context();
  const std::vector<float> weights = weights_of(ctx, model);
  for (const models::Parameter& p : model.table().parameters()) {
    const auto direction = model.table().values(gradient, p);
    double norm = 0;
    for (const float value : direction) norm += double{value} * value;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0) << p.name;
    const auto loss_at = [&](double step) {
      std::vector<float> moved = weights;
      const Span<float> values = model.table().values(Span<float>(moved), p);
      for (int64_t i = 0; i < p.size; ++i)
        values[i] += static_cast<float>(step * direction[i] / norm);
      set_weights(ctx, model, moved);
      model.pack(ctx);
      const double loss = gradient_of(model, objective, trees, 1 << 20).sums.loss;
      set_weights(ctx, model, weights);
      model.pack(ctx);
      return loss;
    };
    const auto central = [&](double h) { return (loss_at(h) - loss_at(-h)) / (2 * h); };
    const double h = 2e-3,
                 numeric =
                     (4 * central(h / 2) - central(h)) / 3;  // Richardson: the cubic term cancels
    EXPECT_NEAR(numeric, norm, 0.01 * norm + 2e-4) << p.name;
  }
}

}  // namespace orrery::testing_support
