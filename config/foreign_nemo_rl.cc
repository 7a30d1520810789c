// Keys of NeMo-RL's configs. See foreign_keys.h.
#include "config/foreign_tables.h"

namespace orrery::config {
namespace {

constexpr ForeignKey kNemoRlKeys[] = {
    {"NeMo-RL", "policy.model_name", "model.path", "a folder on disk; nothing is downloaded"},
    {"NeMo-RL", "policy.tokenizer.name", "model.path",
     "the tokenizer is read from the model's folder"},
    {"NeMo-RL", "policy.tokenizer.chat_template", "model.chat_template_file", "a Jinja file"},
    {"NeMo-RL", "policy.precision", "model.compute_dtype",
     "f32 or bf16; master weights are f32 always"},
    {"NeMo-RL", "policy.train_global_batch_size", "actor.ppo_mini_batch_size",
     "samples there, prompts here: divide by rollout.n"},
    {"NeMo-RL", "policy.train_micro_batch_size", "actor.ppo_max_token_len_per_gpu",
     "tokens, not samples; changes memory and speed, not results"},
    {"NeMo-RL", "policy.logprob_batch_size", "",
     "there is no pass for old log-probs: the engine's are the learner's to the bit; "
     "leave it out"},
    {"NeMo-RL", "policy.max_total_sequence_length",
     "data.max_prompt_length, data.max_response_length", "their sum"},
    {"NeMo-RL", "policy.max_grad_norm", "actor.optim.clip_grad", ""},
    {"NeMo-RL", "policy.optimizer.kwargs.lr", "actor.optim.lr", ""},
    {"NeMo-RL", "policy.optimizer.kwargs.weight_decay", "actor.optim.weight_decay", ""},
    {"NeMo-RL", "policy.generation.backend", "",
     "there is one engine, of the learner's own kernels: leave it out"},
    {"NeMo-RL", "policy.generation.temperature", "rollout.temperature", ""},
    {"NeMo-RL", "policy.generation.max_new_tokens", "data.max_response_length", ""},
    {"NeMo-RL", "policy.generation.vllm_cfg.", "", "there is one engine: rollout has its settings"},
    {"NeMo-RL", "policy.dtensor_cfg.", "", "there is no tensor parallelism yet"},
    {"NeMo-RL", "policy.megatron_cfg.", "", "there is no tensor or pipeline parallelism yet"},
    {"NeMo-RL", "grpo.num_prompts_per_step", "data.train_batch_size", ""},
    {"NeMo-RL", "grpo.num_generations_per_prompt", "rollout.n", ""},
    {"NeMo-RL", "grpo.max_num_steps", "trainer.total_training_steps", ""},
    {"NeMo-RL", "grpo.normalize_rewards", "algorithm.norm_adv_by_std_in_grpo", ""},
    {"NeMo-RL", "grpo.use_leave_one_out_baseline", "algorithm.adv_estimator", "rloo"},
    {"NeMo-RL", "grpo.val_period", "trainer.test_freq", ""},
    {"NeMo-RL", "grpo.val_at_start", "trainer.test_freq",
     "validation comes before the first step whenever test_freq is not 0"},
    {"NeMo-RL", "grpo.max_val_samples", "data.val_size", ""},
    {"NeMo-RL", "grpo.seed", "seed", ""},
    {"NeMo-RL", "loss_fn.reference_policy_kl_penalty", "actor.kl_loss_coef", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_min", "actor.clip_ratio_low", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_max", "actor.clip_ratio_high", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_c", "actor.clip_ratio_c", ""},
    {"NeMo-RL", "loss_fn.disable_ppo_ratio", "actor.loss_mode", "true is reinforce"},
    {"NeMo-RL", "grpo.overlong_filtering", "actor.mask_truncated_completions", ""},
    {"NeMo-RL", "loss_fn.token_level_loss", "actor.loss_agg_mode", "token-mean"},
    {"NeMo-RL", "loss_fn.use_importance_sampling_correction", "",
     "rollout and training run the same kernels: there is nothing to correct"},
    {"NeMo-RL", "checkpointing.checkpoint_dir", "run_dir", ""},
    {"NeMo-RL", "checkpointing.save_period", "trainer.save_freq", ""},
    {"NeMo-RL", "checkpointing.keep_top_k", "trainer.max_ckpt_to_keep", "the newest, not the best"},
    {"NeMo-RL", "logger.log_dir", "run_dir", ""},
    {"NeMo-RL", "logger.tensorboard_enabled", "trainer.tensorboard", ""},
    {"NeMo-RL", "logger.wandb_enabled", "trainer.tensorboard",
     "metrics.jsonl is always written; wandb and MLflow import TensorBoard's files"},
    {"NeMo-RL", "cluster.gpus_per_node", "",
     "ranks are the launcher's: mpirun -n, orrery launch -n, or Slurm"},
    {"NeMo-RL", "cluster.num_nodes", "",
     "ranks are the launcher's: mpirun -n, orrery launch -n, or Slurm"},
};

}  // namespace

std::span<const ForeignKey> nemo_rl_keys() { return kNemoRlKeys; }

}  // namespace orrery::config
