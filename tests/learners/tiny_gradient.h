// The gradient of a small model over whole batches, for the learner's tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "learners/gradient.h"
#include "tests/learners/tiny_model.h"

namespace orrery::testing_support {

/// Adds the objective's gradient over the batches, and its sums.
inline void shard_gradient(const Context& ctx, const models::Transformer& model,
                           const learners::Objective& objective,
                           std::span<const learners::MicroBatch> batches, std::span<float> gradient,
                           learners::LossSums& sums, Arena& arena) {
  const Vec<float> whole(gradient.data(), std::ssize(gradient));
  learners::ShardPass pass(ctx, model, batches, whole, arena);
  while (pass.forward()) {
    pass.head_backward(objective, sums);
    while (pass.backward_layer()) {
    }
  }
  pass.embedding_backward();
}

struct GradientResult {
  std::vector<float> gradient;
  learners::LossSums sums;
};

inline GradientResult gradient_of(const models::Transformer& model,
                                  const learners::Objective& objective,
                                  std::vector<learners::Tree>& trees, int64_t max_tokens,
                                  int threads = 1) {
  Context ctx;
  ctx.threads = threads;
  Arena arena;
  GradientResult result{std::vector<float>(model.parameters().size(), 0.0f),
                        learners::LossSums(objective.loss->terms())};
  const auto order = pointers(trees);
  const auto batches = learners::pack(order, max_tokens);
  shard_gradient(ctx, model, objective, batches, result.gradient, result.sums, arena);
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
  const Context ctx;
  for (const models::Parameter& p : model.table().parameters()) {
    double norm = 0;
    for (int64_t i = p.offset; i < p.offset + p.size; ++i)
      norm += double{gradient[i]} * gradient[i];
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0) << p.name;
    const auto loss_at = [&](double step) {
      std::vector<float> saved(model.parameters().begin(), model.parameters().end());
      for (int64_t i = p.offset; i < p.offset + p.size; ++i)
        model.write_parameters()[i] += static_cast<float>(step * gradient[i] / norm);
      model.pack(ctx);
      const double loss = gradient_of(model, objective, trees, 1 << 20).sums.loss;
      std::copy(saved.begin(), saved.end(), model.write_parameters().begin());
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
