#include "learners/objective.h"

#include "core/error.h"
#include "learners/losses/gspo.h"
#include "learners/losses/policy.h"
#include "learners/losses/ppo.h"
#include "learners/losses/sft.h"
#include "proto/config.pb.h"

namespace orrery::learners {
namespace {

float to_float(double value) { return static_cast<float>(value); }

KlEstimate kl_estimate_of(proto::ActorSection::KlLossType type) {
  switch (type) {
    case proto::ActorSection::K1:
      return KlEstimate::kK1;
    case proto::ActorSection::K2:
      return KlEstimate::kK2;
    case proto::ActorSection::K3:
      break;
  }
  return KlEstimate::kK3;
}

std::shared_ptr<const Loss> policy_loss(const proto::ActorSection& actor) {
  const float low = to_float(actor.clip_ratio_low()), high = to_float(actor.clip_ratio_high());
  const Kl kl{to_float(actor.kl_loss_coef()), kl_estimate_of(actor.kl_loss_type())};
  const float entropy = to_float(actor.entropy_coeff());
  switch (actor.loss_mode()) {
    case proto::ActorSection::VANILLA:
      return make_loss(Policy<Ppo>{{low, high, to_float(actor.clip_ratio_c())}, kl, entropy});
    case proto::ActorSection::GSPO:
      return make_loss(Policy<Gspo>{{low, high}, kl, entropy});
  }
  fail("unknown actor.loss_mode {}", static_cast<int>(actor.loss_mode()));
}

}  // namespace

Objective policy_objective(const proto::Config& config) {
  return {policy_loss(config.actor()), to_float(config.rollout().temperature()),
          config.algorithm().verify_logprobs()};
}

Objective sft_objective() { return {make_loss(Sft{})}; }

}  // namespace orrery::learners
