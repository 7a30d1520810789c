#include "learners/objective.h"

#include "core/error.h"
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
    case proto::ActorSection::ABS:
      return KlEstimate::kAbs;
    case proto::ActorSection::K1_PLUS:
      return KlEstimate::kK1Plus;
    case proto::ActorSection::K3_PLUS:
      return KlEstimate::kK3Plus;
    case proto::ActorSection::K3:
      break;
  }
  return KlEstimate::kK3;
}

/// With the terms that all policy losses have.
template <class PolicyTermOf>
std::shared_ptr<const Loss> policy_loss(const PolicyTermOf& policy,
                                        const proto::ActorSection& actor) {
  return make_loss(
      Policy<PolicyTermOf>{policy,
                           {to_float(actor.kl_loss_coef()), kl_estimate_of(actor.kl_loss_type())},
                           to_float(actor.entropy_coeff()),
                           to_float(actor.off_policy_mask_threshold())});
}

std::shared_ptr<const Loss> policy_loss(const proto::ActorSection& actor) {
  const float low = to_float(actor.clip_ratio_low()), high = to_float(actor.clip_ratio_high()),
              c = to_float(actor.clip_ratio_c());
  switch (actor.loss_mode()) {
    case proto::ActorSection::VANILLA:
      return policy_loss(Ppo{low, high, c}, actor);
    case proto::ActorSection::GSPO:
      return policy_loss(Gspo{low, high}, actor);
    case proto::ActorSection::GEO_MEAN:
      return policy_loss(GeoMean{low, high}, actor);
    case proto::ActorSection::CISPO:
      return policy_loss(Cispo{low, high}, actor);
    case proto::ActorSection::SAPO:
      return policy_loss(Sapo{to_float(actor.tau_pos()), to_float(actor.tau_neg())}, actor);
    case proto::ActorSection::DPPO_TV:
      return policy_loss(DppoTv{low, high, c}, actor);
    case proto::ActorSection::DPPO_KL:
      return policy_loss(DppoKl{low, high, c}, actor);
    case proto::ActorSection::TOPR:
      return policy_loss(Topr{}, actor);
    case proto::ActorSection::REINFORCE:
      return policy_loss(Reinforce{}, actor);
    case proto::ActorSection::DRO:
      return policy_loss(Dro{to_float(actor.dro_beta())}, actor);
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
