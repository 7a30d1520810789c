// Options of OpenRLHF's command line. See foreign_keys.h.
#include "config/foreign_tables.h"

namespace orrery::config {
namespace {

constexpr ForeignKey kOpenRlhfKeys[] = {
    {"OpenRLHF", "pretrain", "model.path", "a folder on disk; nothing is downloaded"},
    {"OpenRLHF", "prompt_data", "data.train_files", "JSONL on disk; nothing is downloaded"},
    {"OpenRLHF", "eval_dataset", "data.val_files", "JSONL on disk"},
    {"OpenRLHF", "input_key", "",
     "rows have \"prompt\", \"question\" or \"problem\" (docs/formats.md)"},
    {"OpenRLHF", "label_key", "",
     "rows have reward_model.ground_truth, or \"answer\" (docs/formats.md)"},
    {"OpenRLHF", "input_template", "data.prompt_template", ""},
    {"OpenRLHF", "prompt_max_len", "data.max_prompt_length", ""},
    {"OpenRLHF", "generate_max_len", "data.max_response_length", ""},
    {"OpenRLHF", "max_samples", "", "shorten the file: head -n N train.jsonl"},
    {"OpenRLHF", "rollout_batch_size", "data.train_batch_size", "prompts"},
    {"OpenRLHF", "train_batch_size", "actor.ppo_mini_batch_size",
     "of OpenRLHF, which counts samples there: divide by rollout.n; "
     "verl's is data.train_batch_size"},
    {"OpenRLHF", "micro_train_batch_size", "actor.ppo_max_token_len_per_gpu",
     "tokens, not samples; changes memory and speed, not results"},
    {"OpenRLHF", "micro_rollout_batch_size", "rollout.max_num_seqs",
     "sequences generated at once on a rank"},
    {"OpenRLHF", "n_samples_per_prompt", "rollout.n", ""},
    {"OpenRLHF", "eval_n_samples_per_prompt", "rollout.val_n", ""},
    {"OpenRLHF", "eval_temperature", "rollout.val_temperature", ""},
    {"OpenRLHF", "max_epochs", "actor.ppo_epochs", ""},
    {"OpenRLHF", "num_episodes", "trainer.total_training_steps",
     "steps: episodes times prompts divided by data.train_batch_size"},
    {"OpenRLHF", "advantage_estimator", "algorithm.adv_estimator",
     "group_norm is grpo, dr_grpo is grpo with norm_adv_by_std_in_grpo false, "
     "reinforce is reinforce-plus-plus, reinforce_baseline is reinforce-plus-plus-baseline; "
     "there is no critic yet, so no gae"},
    {"OpenRLHF", "no_advantage_std_norm", "algorithm.norm_adv_by_std_in_grpo", "false"},
    {"OpenRLHF", "actor_learning_rate", "actor.optim.lr", ""},
    {"OpenRLHF", "critic_learning_rate", "", "there is no critic yet"},
    {"OpenRLHF", "critic_pretrain", "", "there is no critic yet"},
    {"OpenRLHF", "lr_warmup_ratio", "actor.optim.lr_warmup_steps",
     "steps: the ratio times trainer.total_training_steps"},
    {"OpenRLHF", "lr_scheduler", "actor.optim.lr_scheduler_type", ""},
    {"OpenRLHF", "adam_betas", "actor.optim.beta1, actor.optim.beta2", ""},
    {"OpenRLHF", "l2", "actor.optim.weight_decay", ""},
    {"OpenRLHF", "max_norm", "actor.optim.clip_grad", ""},
    {"OpenRLHF", "eps_clip", "actor.clip_ratio_low, actor.clip_ratio_high", "set both"},
    {"OpenRLHF", "eps_clip_low_high", "actor.clip_ratio_low, actor.clip_ratio_high", ""},
    {"OpenRLHF", "dual_clip", "actor.clip_ratio_c", ""},
    {"OpenRLHF", "value_clip", "", "there is no critic yet"},
    {"OpenRLHF", "gamma", "", "there is no critic, and an episode has one reward: leave it out"},
    {"OpenRLHF", "lambd", "", "there is no critic yet, so no GAE"},
    {"OpenRLHF", "init_kl_coef", "actor.kl_loss_coef", "KL is part of the loss alone"},
    {"OpenRLHF", "kl_target", "actor.kl_loss_coef", "the coefficient is fixed"},
    {"OpenRLHF", "kl_estimator", "actor.kl_loss_type", ""},
    {"OpenRLHF", "policy_loss_type", "actor.loss_mode", "ppo is vanilla, gspo is gspo"},
    {"OpenRLHF", "entropy_loss_coef", "actor.entropy_coeff", ""},
    {"OpenRLHF", "normalize_reward", "", "advantages are: algorithm.adv_estimator"},
    {"OpenRLHF", "reward_pretrain", "", "there are no reward models yet"},
    {"OpenRLHF", "remote_rm_url", "data.external.command",
     "with data.env external: a program that asks your server"},
    {"OpenRLHF", "agent_func_path", "data.external.command",
     "with data.env external: a multi-turn program (examples/)"},
    {"OpenRLHF", "dynamic_filtering", "",
     "groups whose rewards are all equal are kept; they add nothing to the gradient"},
    {"OpenRLHF", "zero_stage", "",
     "the optimizer's state is sharded over the learners always: leave it out"},
    {"OpenRLHF", "vllm_num_engines", "cluster.placement",
     "colocated ranks both learn and generate; split: mpirun's other ranks generate"},
    {"OpenRLHF", "vllm_tensor_parallel_size", "", "there is no tensor parallelism yet"},
    {"OpenRLHF", "colocate_all_models", "cluster.placement", "colocated is the default"},
    {"OpenRLHF", "async_train", "", "steps are synchronous: there is no async training yet"},
    {"OpenRLHF", "ring_attn_size", "", "there is no sequence parallelism yet"},
    {"OpenRLHF", "packing_samples", "", "sequences are never padded: leave it out"},
    {"OpenRLHF", "save_path", "run_dir", ""},
    {"OpenRLHF", "ckpt_path", "run_dir", ""},
    {"OpenRLHF", "max_ckpt_num", "trainer.max_ckpt_to_keep", ""},
    {"OpenRLHF", "load_checkpoint", "trainer.resume", "auto is the default"},
    {"OpenRLHF", "use_wandb", "trainer.tensorboard",
     "metrics.jsonl is always written; wandb and MLflow import TensorBoard's files"},
    {"OpenRLHF", "use_tensorboard", "trainer.tensorboard",
     "true or false; the files are in run_dir"},
};

}  // namespace

std::span<const ForeignKey> openrlhf_keys() { return kOpenRlhfKeys; }

}  // namespace orrery::config
