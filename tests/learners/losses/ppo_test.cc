#include "learners/losses/ppo.h"

#include <gtest/gtest.h>

#include <cmath>

namespace orrery::learners {
namespace {

PolicyTerm ppo(const Ppo& loss, float logp, float old_logp, float advantage) {
  return loss(LossToken{.logp = logp, .old_logp = old_logp, .advantage = advantage});
}
float ppo_kl(const PolicyTerm& term) { return term.terms[0]; }
bool clipped(const PolicyTerm& term) { return term.terms[1] != 0; }
bool clipped_lower(const PolicyTerm& term) { return term.terms[2] != 0; }

TEST(Ppo, RatioOneIsPlainPolicyGradient) {
  const PolicyTerm term = ppo({}, -1.5f, -1.5f, 2.0f);
  EXPECT_EQ(term.loss, -2.0f);
  EXPECT_EQ(term.dlogp, -2.0f);
  EXPECT_FALSE(clipped(term));
}

TEST(Ppo, ClipsWhereVerlDoes) {
  Ppo loss;  // 0.2, 0.28, dual clip 3
  // Positive advantage, ratio above 1.28: clipped, no gradient.
  const PolicyTerm up = ppo(loss, -1.0f, -1.5f, 1.0f);
  EXPECT_TRUE(clipped(up));
  EXPECT_FLOAT_EQ(up.loss, -1.28f);
  EXPECT_EQ(up.dlogp, 0.0f);
  // Negative advantage, ratio below 0.8: clipped.
  const PolicyTerm down = ppo(loss, -2.0f, -1.5f, -1.0f);
  EXPECT_TRUE(clipped(down));
  EXPECT_FLOAT_EQ(down.loss, 0.8f);
  // Negative advantage, huge ratio: the dual clip bounds it.
  const PolicyTerm dual = ppo(loss, -1.0f, -4.0f, -1.0f);
  EXPECT_TRUE(clipped_lower(dual));
  EXPECT_FLOAT_EQ(dual.loss, 3.0f);
  EXPECT_EQ(dual.dlogp, 0.0f);
  loss.clip_ratio_c = 0;
  EXPECT_NEAR(ppo(loss, -1.0f, -4.0f, -1.0f).loss, std::exp(3.0), 1e-4);
}

TEST(Ppo, LogRatioIsBoundedAsInVerl) {
  EXPECT_FLOAT_EQ(ppo_kl(ppo({}, -1.0f, -1.5f, 1.0f)), -0.5f);
  EXPECT_EQ(ppo_kl(ppo({}, -1.0f, -50.0f, 1.0f)), -20.0f);
  EXPECT_EQ(ppo_kl(ppo({}, -50.0f, -1.0f, 1.0f)), 20.0f);
}

}  // namespace
}  // namespace orrery::learners
