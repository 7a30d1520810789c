// The policy term, the KL term and the entropy bonus together.
#include "learners/losses/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "learners/loss.h"
#include "learners/losses/ppo.h"

namespace orrery::learners {
namespace {

LossToken token(float logp, float advantage, float is_weight = 1) {
  return {.logp = logp,
          .old_logp = -1.5f,
          .ref_logp = -1.2f,
          .advantage = advantage,
          .is_weight = is_weight};
}

float pg_loss(const TokenLoss& loss) { return loss.terms[0]; }
float kl_loss(const TokenLoss& loss) { return loss.terms[4]; }

TEST(PolicyLoss, DerivativesMatchFiniteDifferences) {
  for (const KlEstimate estimate : {KlEstimate::kK1, KlEstimate::kK2, KlEstimate::kK3}) {
    const Policy<Ppo> loss{{}, {0.3f, estimate}, 0};
    for (const float logp : {-3.0f, -1.62f, -1.4f, -0.2f}) {
      for (const float advantage : {-2.0f, 0.0f, 1.5f}) {
        const auto value = [&](double x) {
          return loss(token(static_cast<float>(x), advantage)).loss;
        };
        const double numeric = (value(logp + 1e-3) - value(logp - 1e-3)) / 2e-3;
        EXPECT_NEAR(loss(token(logp, advantage)).dlogp, numeric, 2e-3)
            << "logp " << logp << " advantage " << advantage;
      }
    }
  }
}

TEST(PolicyLoss, KlEstimatorsAreThoseOfSchulman) {
  const float logp = -1.0f, ref = -1.7f, d = ref - logp;
  EXPECT_FLOAT_EQ(kl_estimate(KlEstimate::kK1, logp, ref).value, -d);
  EXPECT_FLOAT_EQ(kl_estimate(KlEstimate::kK2, logp, ref).value, d * d / 2);
  EXPECT_NEAR(kl_estimate(KlEstimate::kK3, logp, ref).value, std::exp(d) - d - 1, 1e-6);
}

TEST(PolicyLoss, ImportanceWeightScalesThePolicyTermAndItsDerivativeAlone) {
  const Policy<Ppo> loss{{}, {0.3f}, 0};
  for (const float advantage : {-1.5f, 2.0f}) {
    for (const float logp : {-1.62f, -1.5f, -1.44f, -0.2f}) {
      const TokenLoss plain = loss(token(logp, advantage));
      const PolicyTerm term = loss.policy(token(logp, advantage));
      EXPECT_EQ(std::bit_cast<uint32_t>(pg_loss(plain)), std::bit_cast<uint32_t>(term.loss))
          << "a weight of 1 leaves every bit";
      for (const float weight : {0.3f, 2.0f}) {
        const TokenLoss weighted = loss(token(logp, advantage, weight));
        EXPECT_FLOAT_EQ(pg_loss(weighted), weight * pg_loss(plain));
        EXPECT_EQ(kl_loss(weighted), kl_loss(plain));
        EXPECT_EQ(weighted.terms[2], plain.terms[2]) << "pg_clipfrac";
        const auto value = [&](double x) {
          return loss(token(static_cast<float>(x), advantage, weight)).loss;
        };
        const double numeric = (value(logp + 1e-3) - value(logp - 1e-3)) / 2e-3;
        EXPECT_NEAR(weighted.dlogp, numeric, 4e-3) << "logp " << logp << " advantage " << advantage;
      }
    }
  }
}

TEST(PolicyLoss, EntropyIsTakenFromTheLoss) {
  LossToken one = token(-1.5f, 2);
  one.entropy = 3;
  const TokenLoss loss = Policy<Ppo>{{}, {}, 0.25f}(one);
  EXPECT_EQ(loss.loss, -2 - 0.75);
  EXPECT_EQ(loss.dentropy, -0.25f);
}

std::vector<std::string> names(const Loss& loss) {
  std::vector<std::string> result;
  for (const Term& term : loss.terms()) result.emplace_back(term.name);
  return result;
}

TEST(PolicyLoss, DeclaresItsMetricsAndKlWhereThereIsOne) {
  using testing::ElementsAre;
  const auto plain = make_loss(Policy<Ppo>{}), with_kl = make_loss(Policy<Ppo>{{}, {0.1f}, 0});
  EXPECT_THAT(names(*plain), ElementsAre("pg_loss", "ppo_kl", "pg_clipfrac", "pg_clipfrac_lower"));
  EXPECT_THAT(names(*with_kl),
              ElementsAre("pg_loss", "ppo_kl", "pg_clipfrac", "pg_clipfrac_lower", "kl_loss"));
  EXPECT_FALSE(plain->uses_reference());
  EXPECT_TRUE(with_kl->uses_reference());
  EXPECT_FALSE(plain->is_coupled());
}

}  // namespace
}  // namespace orrery::learners
