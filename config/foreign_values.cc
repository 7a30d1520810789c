// Words of other programs for values of keys that they share with this one. See
// foreign_keys.h.
#include "config/foreign_keys.h"

namespace orrery::config {
namespace {

constexpr ForeignValue kValues[] = {
    {"algorithm.adv_estimator", "gae",
     "gae needs a critic, and there is none yet: grpo and rloo need none"},
    {"algorithm.adv_estimator", "reinforce-plus-plus",
     "without a baseline there is none: reinforce-plus-plus-baseline is the nearest"},
    {"algorithm.adv_estimator", "reinforce-baseline",
     "OpenRLHF's reinforce_baseline is reinforce-plus-plus-baseline"},
    {"algorithm.adv_estimator", "group-norm", "OpenRLHF's group_norm is grpo"},
    {"algorithm.adv_estimator", "dr-grpo",
     "Dr. GRPO is grpo with algorithm.norm_adv_by_std_in_grpo: false"},
    {"algorithm.adv_estimator", "remax", "there is no ReMax yet: rloo is the nearest"},
    {"algorithm.adv_estimator", "opo", "there is no OPO yet: rloo is the nearest"},
    {"algorithm.adv_estimator", "grpo-passk", "there is no pass@k objective yet"},
    {"algorithm.adv_estimator", "reinforce", "there is no plain REINFORCE: rloo is the nearest"},
    {"actor.kl_loss_type", "low-var-kl", "verl's low_var_kl is k3"},
    {"actor.kl_loss_type", "kl", "verl's kl is k1"},
    {"actor.kl_loss_type", "mse", "verl's mse is k2"},
    {"actor.kl_loss_type", "abs", "there is none: k2 is the nearest"},
    {"actor.kl_loss_type", "full",
     "there is none: the estimates of the sampled tokens are k1, k2, k3"},
    {"actor.loss_agg_mode", "grpo", "TRL's grpo is seq-mean-token-mean"},
    {"actor.loss_agg_mode", "dapo", "TRL's dapo is token-mean"},
    {"actor.loss_agg_mode", "bnpo", "TRL's bnpo is token-mean"},
    {"actor.loss_agg_mode", "dr-grpo", "TRL's dr_grpo is seq-mean-token-sum-norm"},
    {"actor.optim.lr_scheduler_type", "cosine-with-min-lr", "it is cosine, with min_lr_ratio"},
    {"actor.optim.lr_scheduler_type", "constant-with-warmup",
     "it is constant, with lr_warmup_steps"},
    {"sft.optim.lr_scheduler_type", "wsd", "there is none yet"},
    {"sft.optim.lr_scheduler_type", "cosine-with-min-lr", "it is cosine, with min_lr_ratio"},
    {"sft.optim.lr_scheduler_type", "constant-with-warmup", "it is constant, with lr_warmup_steps"},
    {"model.compute_dtype", "bfloat16", "it is bf16"},
    {"model.compute_dtype", "float32", "it is f32"},
    {"model.compute_dtype", "fp32", "it is f32"},
    {"model.compute_dtype", "fp16", "there is no fp16 yet"},
    {"model.compute_dtype", "float16", "there is no fp16 yet"},
    {"rollout.compute_dtype", "bfloat16", "it is bf16"},
    {"rollout.compute_dtype", "float32", "it is f32"},
    {"rollout.compute_dtype", "fp32", "it is f32"},
    {"rollout.compute_dtype", "fp16", "there is no fp16 yet"},
    {"rollout.compute_dtype", "float16", "there is no fp16 yet"},
    {"rollout.compute_dtype", "auto", "it is same"},
    {"rollout.top_k", "-1", "0 turns it off"},
    {"data.on_error", "error", "verl's truncation: error is fail"},
    {"data.on_error", "left", "prompts are never cut: skip leaves long ones out"},
    {"data.on_error", "right", "prompts are never cut: skip leaves long ones out"},
    {"data.env", "math",
     "rows of MATH are graded in gsm8k too, by their data_source (docs/formats.md)"},
    {"data.env", "custom", "a reward of your own is external"},
    {"cluster.placement", "colocate", "it is colocated"},
};

}  // namespace

std::span<const ForeignValue> foreign_values() { return kValues; }

}  // namespace orrery::config
