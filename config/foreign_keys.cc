#include "config/foreign_keys.h"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "config/config_keys.h"
#include "proto/config.pb.h"

namespace orrery::config {
namespace {

// clang-format off
constexpr ForeignKey kKeys[] = {
    {"verl", "actor_rollout_ref.model.path", "model.path", "a folder on disk; "
                                                           "nothing is downloaded"},
    {"verl", "actor_rollout_ref.model.tokenizer_path", "model.path", "the tokenizer is read from "
                                                                     "the model's folder"},
    {"verl", "data.tokenizer", "model.path", "the tokenizer is read from the model's folder"},
    {"verl", "actor_rollout_ref.model.custom_chat_template", "model.chat_template_file", "a Jinja file"},
    {"verl", "actor_rollout_ref.model.trust_remote_code", "", "no code of a model's folder is ever "
                                                              "run: leave it out"},
    {"verl", "actor_rollout_ref.model.external_lib", "", "Python is not loaded; "
                                                         "a reward of your own is data.env "
                                                         "external"},
    {"verl", "actor_rollout_ref.model.override_config", "", "edit config.json in a copy of the "
                                                            "model's folder"},
    {"verl", "actor_rollout_ref.model.enable_gradient_checkpointing", "", "actor.ppo_max_token_len_per_gpu bounds the memory of activations: leave it out"},
    {"verl", "actor_rollout_ref.model.enable_activation_offload", "", "actor.ppo_max_token_len_per_gpu bounds the memory of activations: leave it out"},
    {"verl", "actor_rollout_ref.model.use_remove_padding", "", "sequences are never padded: leave it out"},
    {"verl", "actor_rollout_ref.model.use_fused_kernels", "", "the kernels are fused always: "
                                                              "leave it out"},
    {"verl", "actor_rollout_ref.model.use_liger", "", "the kernels are fused always: leave it out"},
    {"verl", "actor_rollout_ref.model.use_shm", "", "leave it out"},
    {"verl", "actor_rollout_ref.model.lora_rank", "", "there is no LoRA yet: "
                                                      "all weights are trained"},
    {"verl", "actor_rollout_ref.model.lora_alpha", "", "there is no LoRA yet: "
                                                       "all weights are trained"},
    {"verl", "actor_rollout_ref.model.target_modules", "", "there is no LoRA yet: "
                                                           "all weights are trained"},
    {"verl", "actor_rollout_ref.actor.strategy", "", "there is one way to shard "
                                                     "(cluster.learners): leave it out"},
    {"verl", "actor_rollout_ref.actor.fsdp_config.", "", "the optimizer's state is sharded over "
                                                         "the learners always; "
                                                         "products in bf16 are "
                                                         "model.compute_dtype"},
    {"verl", "actor_rollout_ref.actor.megatron.", "", "there is no tensor or pipeline parallelism "
                                                      "yet"},
    {"verl", "actor_rollout_ref.actor.clip_ratio", "actor.clip_ratio_low, actor.clip_ratio_high", "set both; the second is 0.28 where it is not set"},
    {"verl", "actor_rollout_ref.actor.grad_clip", "actor.optim.clip_grad", ""},
    {"verl", "actor_rollout_ref.actor.use_kl_loss", "actor.kl_loss_coef", "above 0 turns the KL loss on"},
    {"verl", "actor_rollout_ref.actor.use_dynamic_bsz", "", "micro-batches are always cut by "
                                                            "tokens "
                                                            "(actor.ppo_max_token_len_per_gpu): "
                                                            "leave it out"},
    {"verl", "actor_rollout_ref.actor.ppo_micro_batch_size", "actor.ppo_max_token_len_per_gpu", "tokens, not samples; changes memory and speed, not results"},
    {"verl", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", "actor.ppo_max_token_len_per_gpu", "tokens, not samples; changes memory and speed, not results"},
    {"verl", "actor_rollout_ref.actor.loss_scale_factor", "", "seq-mean-token-sum-norm divides by "
                                                              "data.max_response_length"},
    {"verl", "actor_rollout_ref.actor.policy_loss.loss_mode", "actor.loss_mode", "vanilla and gspo are the same here"},
    {"verl", "actor_rollout_ref.actor.policy_loss.", "", "of losses that there are not: vanilla and gspo have no key of their own"},
    {"verl", "actor_rollout_ref.actor.calculate_entropy", "", "the entropy is always measured: "
                                                              "leave it out"},
    {"verl", "actor_rollout_ref.actor.shuffle", "", "mini-batches are taken in order: "
                                                    "leave it out"},
    {"verl", "actor_rollout_ref.actor.ulysses_sequence_parallel_size", "", "there is no sequence parallelism yet"},
    {"verl", "actor_rollout_ref.actor.entropy_checkpointing", "", "leave it out"},
    {"verl", "actor_rollout_ref.actor.entropy_from_logits_with_chunking", "", "logits are never whole in memory: leave it out"},
    {"verl", "actor_rollout_ref.actor.use_torch_compile", "", "there is no torch here: leave it out"},
    {"verl", "actor_rollout_ref.actor.checkpoint.", "", "checkpoints hold all that is needed to go "
                                                        "on, always: leave it out"},
    {"verl", "actor_rollout_ref.actor.optim.betas", "actor.optim.beta1, actor.optim.beta2", ""},
    {"verl", "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio", "actor.optim.lr_warmup_steps", "steps: the ratio times trainer.total_training_steps"},
    {"verl", "actor_rollout_ref.actor.optim.warmup_style", "actor.optim.lr_scheduler_type", ""},
    {"verl", "actor_rollout_ref.actor.optim.num_cycles", "", "cosine goes down once, "
                                                             "to actor.optim.min_lr_ratio"},
    {"verl", "actor_rollout_ref.actor.optim.optimizer", "", "it is AdamW: leave it out"},
    {"verl", "actor_rollout_ref.actor.optim.total_training_steps", "trainer.total_training_steps", ""},
    {"verl", "actor_rollout_ref.rollout.name", "", "there is one engine, of the learner's own "
                                                   "kernels: leave it out"},
    {"verl", "actor_rollout_ref.rollout.mode", "", "requests are always scheduled one by one: "
                                                   "leave it out"},
    {"verl", "actor_rollout_ref.rollout.do_sample", "rollout.temperature", "0 is greedy, in validation only"},
    {"verl", "actor_rollout_ref.rollout.prompt_length", "data.max_prompt_length", ""},
    {"verl", "actor_rollout_ref.rollout.response_length", "data.max_response_length", ""},
    {"verl", "actor_rollout_ref.rollout.max_model_len", "", "it is data.max_prompt_length + "
                                                            "data.max_response_length"},
    {"verl", "actor_rollout_ref.rollout.dtype", "model.compute_dtype", "or rollout.compute_dtype "
                                                                       "where ranks only generate"},
    {"verl", "actor_rollout_ref.rollout.gpu_memory_utilization", "rollout.kv_cache_gb", "GiB of "
                                                                                        "keys and "
                                                                                        "values, "
                                                                                        "not a "
                                                                                        "share of "
                                                                                        "the "
                                                                                        "memory"},
    {"verl", "actor_rollout_ref.rollout.tensor_model_parallel_size", "", "there is no tensor "
                                                                         "parallelism yet: "
                                                                         "each rank has the whole "
                                                                         "model"},
    {"verl", "actor_rollout_ref.rollout.data_parallel_size", "", "start as many ranks: mpirun -n"},
    {"verl", "actor_rollout_ref.rollout.pipeline_model_parallel_size", "", "there is no pipeline parallelism yet"},
    {"verl", "actor_rollout_ref.rollout.enforce_eager", "", "there are no graphs to capture: "
                                                            "leave it out"},
    {"verl", "actor_rollout_ref.rollout.free_cache_engine", "", "leave it out"},
    {"verl", "actor_rollout_ref.rollout.load_format", "", "the engine reads the learner's weights: "
                                                          "leave it out"},
    {"verl", "actor_rollout_ref.rollout.enable_chunked_prefill", "", "always on: leave it out"},
    {"verl", "actor_rollout_ref.rollout.enable_prefix_caching", "", "a group's prompt is computed "
                                                                    "once, always: leave it out"},
    {"verl", "actor_rollout_ref.rollout.ignore_eos", "", "an end token ends a response always"},
    {"verl", "actor_rollout_ref.rollout.log_prob_micro_batch_size", "", "there is no pass for old "
                                                                        "log-probs: the engine's "
                                                                        "are the learner's to the "
                                                                        "bit; leave it out"},
    {"verl", "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", "", "there is no pass "
                                                                                "for old "
                                                                                "log-probs: "
                                                                                "the engine's are "
                                                                                "the learner's to "
                                                                                "the bit; "
                                                                                "leave it out"},
    {"verl", "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz", "", "there is no pass for old log-probs: leave it out"},
    {"verl", "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu", "", "there is no pass for old log-probs: leave it out"},
    {"verl", "actor_rollout_ref.rollout.calculate_log_probs", "algorithm.verify_logprobs", "they are recorded and compared always"},
    {"verl", "actor_rollout_ref.rollout.val_kwargs.n", "rollout.val_n", ""},
    {"verl", "actor_rollout_ref.rollout.val_kwargs.temperature", "rollout.val_temperature", ""},
    {"verl", "actor_rollout_ref.rollout.val_kwargs.do_sample", "rollout.val_temperature", "0 is greedy"},
    {"verl", "actor_rollout_ref.rollout.val_kwargs.", "", "validation samples by "
                                                          "rollout.val_temperature alone, "
                                                          "without top_p or top_k"},
    {"verl", "actor_rollout_ref.rollout.multi_turn.", "data.external.command", "a multi-turn "
                                                                               "environment is a "
                                                                               "program of yours "
                                                                               "(examples/)"},
    {"verl", "actor_rollout_ref.rollout.agent.", "data.external.command", "a multi-turn "
                                                                          "environment is a "
                                                                          "program of yours "
                                                                          "(examples/)"},
    {"verl", "actor_rollout_ref.rollout.engine_kwargs.", "", "there is one engine, "
                                                             "without options of its own"},
    {"verl", "actor_rollout_ref.ref.", "actor.kl_loss_coef", "the reference model needs no "
                                                             "settings of its own"},
    {"verl", "actor_rollout_ref.", "", "its sections stand by themselves here: "
                                       "actor_rollout_ref.rollout.n is rollout.n"},
    {"verl", "actor_rollout_ref.hybrid_engine", "cluster.placement", "colocated is the default"},
    {"verl", "data.filter_overlong_prompts", "data.on_error", "skip leaves prompts out that are "
                                                              "too long, fail (the default) names "
                                                              "the first"},
    {"verl", "data.filter_overlong_prompts_workers", "cluster.threads", ""},
    {"verl", "data.truncation", "data.on_error", "prompts are never cut: "
                                                 "skip leaves long ones out, "
                                                 "fail (verl's error) names the first"},
    {"verl", "data.prompt_key", "", "rows have \"prompt\", \"question\" or \"problem\" "
                                    "(docs/formats.md)"},
    {"verl", "data.reward_fn_key", "data.reward_rule", "a row's data_source chooses the rule"},
    {"verl", "data.val_batch_size", "rollout.max_num_seqs", "validation is one batch: "
                                                            "leave it out"},
    {"verl", "data.train_max_samples", "", "shorten the file: head -n N train.jsonl"},
    {"verl", "data.val_max_samples", "data.val_size", ""},
    {"verl", "data.seed", "seed", ""},
    {"verl", "data.return_raw_chat", "data.apply_chat_template", ""},
    {"verl", "data.return_raw_input_ids", "", "leave it out"},
    {"verl", "data.return_full_prompt", "", "rollouts keep it always: leave it out"},
    {"verl", "data.tool_config_path", "", "tools stand in a row's \"tools\" (docs/formats.md)"},
    {"verl", "data.dataloader_num_workers", "cluster.threads", "leave it out"},
    {"verl", "data.custom_cls.", "data.external.command", "rows of any keys go to a program of "
                                                          "yours"},
    {"verl", "data.apply_chat_template_kwargs", "data.chat_template_kwargs", ""},
    {"verl", "data.max_length", "sft.max_length", "of verl's SFT trainer"},
    {"verl", "data.response_key", "sft.train_files", "rows of prompt and response, or of messages"},
    {"verl", "data.messages_key", "sft.train_files", "rows of prompt and response, or of messages"},
    {"verl", "data.multiturn.", "sft.train_files", "rows of messages need no switch"},
    {"verl", "data.micro_batch_size_per_gpu", "actor.ppo_max_token_len_per_gpu", "tokens, not samples"},
    {"verl", "model.partial_pretrain", "model.path", "of verl's SFT trainer"},
    {"verl", "optim.lr", "sft.optim.lr", "of verl's SFT trainer"},
    {"verl", "optim.lr_scheduler", "sft.optim.lr_scheduler_type", "of verl's SFT trainer"},
    {"verl", "algorithm.gamma", "", "there is no critic, and an episode has one reward: "
                                    "leave it out"},
    {"verl", "algorithm.lam", "", "there is no critic yet, so no GAE: leave it out"},
    {"verl", "algorithm.use_kl_in_reward", "actor.kl_loss_coef", "KL is part of the loss alone: "
                                                                 "there is none in the reward yet"},
    {"verl", "algorithm.kl_penalty", "actor.kl_loss_type", "KL is part of the loss alone"},
    {"verl", "algorithm.kl_ctrl.kl_coef", "actor.kl_loss_coef", "KL is part of the loss alone, "
                                                                "with a fixed coefficient"},
    {"verl", "algorithm.kl_ctrl.", "actor.kl_loss_coef", "KL is part of the loss alone, "
                                                         "with a fixed coefficient"},
    {"verl", "algorithm.rollout_correction.rollout_is", "", "token, and only where rollouts are of "
                                                            "another type (rollout.compute_dtype): "
                                                            "else there is nothing to correct"},
    {"verl", "algorithm.rollout_correction.rollout_is_threshold", "algorithm.rollout_is_threshold", ""},
    {"verl", "algorithm.rollout_correction.", "", "rollout and training run the same kernels: "
                                                  "there is nothing to correct"},
    {"verl", "algorithm.filter_groups.", "", "groups whose rewards are all equal are kept; "
                                             "they add nothing to the gradient"},
    {"verl", "algorithm.use_pf_ppo", "", "there is none yet"},
    {"verl", "custom_reward_function.", "data.external.command", "with data.env external: "
                                                                 "any program that reads and "
                                                                 "writes JSON lines (examples/)"},
    {"verl", "reward_model.", "data.external.command", "there are no reward models yet: "
                                                       "rules (data.reward_rule), "
                                                       "or a program of yours with data.env "
                                                       "external"},
    {"verl", "reward_manager.", "data.reward_rule", "rules, or with data.env external a program of "
                                                    "yours"},
    {"verl", "critic.", "", "there is no critic yet: the estimators need none"},
    {"verl", "trainer.total_epochs", "trainer.total_training_steps", "steps: epochs times prompts "
                                                                     "divided by "
                                                                     "data.train_batch_size"},
    {"verl", "trainer.project_name", "experiment_name", "one name, in which / makes folders"},
    {"verl", "trainer.experiment_name", "experiment_name", ""},
    {"verl", "trainer.logger", "trainer.tensorboard", "metrics.jsonl is always written; "
                                                      "wandb and MLflow import TensorBoard's "
                                                      "files"},
    {"verl", "trainer.default_local_dir", "run_dir", ""},
    {"verl", "trainer.default_hdfs_dir", "", "there is none: copy run_dir"},
    {"verl", "trainer.rollout_data_dir", "trainer.rollout_save_freq", "RUN/rollouts, "
                                                                      "opened by orrery rollouts"},
    {"verl", "trainer.validation_data_dir", "trainer.rollout_save_freq", "RUN/rollouts, "
                                                                         "opened by orrery "
                                                                         "rollouts"},
    {"verl", "trainer.log_val_generations", "trainer.rollout_save_freq", "RUN/rollouts, "
                                                                         "opened by orrery "
                                                                         "rollouts"},
    {"verl", "trainer.nnodes", "", "ranks are the launcher's: mpirun -n, orrery launch -n, "
                                   "or Slurm"},
    {"verl", "trainer.n_gpus_per_node", "", "ranks are the launcher's: "
                                            "mpirun -n, orrery launch -n, or Slurm"},
    {"verl", "trainer.device", "", "it runs on CPUs: leave it out"},
    {"verl", "trainer.resume_mode", "trainer.resume", "auto is the same; disable is off, "
                                                      "resume_path is the path itself"},
    {"verl", "trainer.resume_from_path", "trainer.resume", "the path"},
    {"verl", "trainer.val_before_train", "trainer.test_freq", "validation comes before the first "
                                                              "step whenever test_freq is not 0"},
    {"verl", "trainer.val_only", "", "orrery eval CONFIG"},
    {"verl", "trainer.critic_warmup", "", "there is no critic yet: leave it out"},
    {"verl", "trainer.balance_batch", "", "leave it out: results do not depend on which learner "
                                          "has which group"},
    {"verl", "trainer.max_actor_ckpt_to_keep", "trainer.max_ckpt_to_keep", ""},
    {"verl", "trainer.max_critic_ckpt_to_keep", "trainer.max_ckpt_to_keep", "there is no critic yet"},
    {"verl", "trainer.del_local_ckpt_after_load", "trainer.max_ckpt_to_keep", ""},
    {"verl", "global_profiler.", "", "orrery bench step, and timing_s/ of metrics.jsonl"},
    {"verl", "ray_kwargs.", "", "there is no Ray: mpirun or orrery launch starts the ranks"},
    {"verl", "ray_init.", "", "there is no Ray: mpirun or orrery launch starts the ranks"},
    {"TRL", "model_name_or_path", "model.path", "a folder on disk; nothing is downloaded"},
    {"TRL", "torch_dtype", "model.compute_dtype", "f32 or bf16; master weights are f32 always"},
    {"TRL", "dtype", "model.compute_dtype", "f32 or bf16; master weights are f32 always"},
    {"TRL", "bf16", "model.compute_dtype", "bf16"},
    {"TRL", "fp16", "model.compute_dtype", "f32 or bf16: there is no fp16 yet"},
    {"TRL", "attn_implementation", "", "there is one: leave it out"},
    {"TRL", "use_peft", "", "there is no LoRA yet: all weights are trained"},
    {"TRL", "lora_r", "", "there is no LoRA yet: all weights are trained"},
    {"TRL", "load_in_4bit", "", "there is no quantization yet"},
    {"TRL", "dataset_name", "data.train_files", "JSONL on disk; nothing is downloaded"},
    {"TRL", "max_completion_length", "data.max_response_length", ""},
    {"TRL", "max_seq_length", "sft.max_length", ""},
    {"TRL", "max_length", "sft.max_length", ""},
    {"TRL", "num_generations", "rollout.n", ""},
    {"TRL", "num_generations_eval", "rollout.val_n", ""},
    {"TRL", "shuffle_dataset", "data.shuffle", ""},
    {"TRL", "per_device_train_batch_size", "data.train_batch_size", "prompts of a whole step, "
                                                                    "not samples of a device: "
                                                                    "batch size x accumulation x "
                                                                    "devices / num_generations"},
    {"TRL", "per_device_eval_batch_size", "rollout.max_num_seqs", "validation is one batch: "
                                                                  "leave it out"},
    {"TRL", "gradient_accumulation_steps", "actor.ppo_max_token_len_per_gpu", "the tokens of one "
                                                                              "pass; the batch is "
                                                                              "data.train_batch_size whatever they are"},
    {"TRL", "generation_batch_size", "data.train_batch_size", "prompts, not samples"},
    {"TRL", "steps_per_generation", "actor.ppo_mini_batch_size", "prompts of one optimizer step: "
                                                                 "data.train_batch_size divided by "
                                                                 "the steps"},
    {"TRL", "num_iterations", "actor.ppo_epochs", ""},
    {"TRL", "beta", "actor.kl_loss_coef", "of the KL loss; Adam's are actor.optim.beta1 and beta2"},
    {"TRL", "epsilon", "actor.clip_ratio_low", ""},
    {"TRL", "epsilon_high", "actor.clip_ratio_high", ""},
    {"TRL", "delta", "actor.clip_ratio_c", "the bound on the loss of negative advantages"},
    {"TRL", "loss_type", "actor.loss_agg_mode", "grpo is seq-mean-token-mean, "
                                                "dapo and bnpo are token-mean, "
                                                "dr_grpo is seq-mean-token-sum-norm"},
    {"TRL", "scale_rewards", "algorithm.norm_adv_by_std_in_grpo", "false is Dr. GRPO's choice"},
    {"TRL", "importance_sampling_level", "actor.loss_mode", "token is vanilla, sequence is gspo"},
    {"TRL", "mask_truncated_completions", "", "responses that are cut off count as they are"},
    {"TRL", "reward_funcs", "data.external.command", "with data.env external: "
                                                     "any program that reads and writes JSON lines "
                                                     "(examples/)"},
    {"TRL", "reward_weights", "data.external.command", "a program of yours adds what it likes"},
    {"TRL", "reward_model_name_or_path", "", "there are no reward models yet"},
    {"TRL", "repetition_penalty", "", "there is none: it would make other log-probs than the "
                                      "learner's"},
    {"TRL", "generation_kwargs", "", "rollout has temperature, top_p, top_k, min_p, stop"},
    {"TRL", "use_vllm", "", "there is one engine, of the learner's own kernels: leave it out"},
    {"TRL", "vllm_mode", "cluster.placement", "colocate is colocated, server is split"},
    {"TRL", "vllm_gpu_memory_utilization", "rollout.kv_cache_gb", "GiB of keys and values, "
                                                                  "not a share of the memory"},
    {"TRL", "vllm_max_model_length", "", "it is data.max_prompt_length + data.max_response_length"},
    {"TRL", "vllm_tensor_parallel_size", "", "there is no tensor parallelism yet"},
    {"TRL", "vllm_importance_sampling_correction", "", "rollout and training run the same kernels: "
                                                       "there is nothing to correct"},
    {"TRL", "learning_rate", "actor.optim.lr", "of SFT: sft.optim.lr"},
    {"TRL", "warmup_steps", "actor.optim.lr_warmup_steps", ""},
    {"TRL", "warmup_ratio", "actor.optim.lr_warmup_steps", "steps: the ratio times "
                                                           "trainer.total_training_steps"},
    {"TRL", "adam_beta1", "actor.optim.beta1", ""},
    {"TRL", "adam_beta2", "actor.optim.beta2", ""},
    {"TRL", "adam_epsilon", "actor.optim.eps", ""},
    {"TRL", "max_grad_norm", "actor.optim.clip_grad", ""},
    {"TRL", "optim", "", "it is AdamW: actor.optim and sft.optim are its settings"},
    {"TRL", "gradient_checkpointing", "", "actor.ppo_max_token_len_per_gpu bounds the memory of "
                                          "activations: leave it out"},
    {"TRL", "max_steps", "trainer.total_training_steps", ""},
    {"TRL", "num_train_epochs", "trainer.total_training_steps", "steps: epochs times prompts "
                                                                "divided by data.train_batch_size"},
    {"TRL", "logging_steps", "", "every step is logged: leave it out"},
    {"TRL", "report_to", "trainer.tensorboard", "metrics.jsonl is always written; "
                                                "wandb and MLflow import TensorBoard's files"},
    {"TRL", "run_name", "experiment_name", ""},
    {"TRL", "output_dir", "run_dir", ""},
    {"TRL", "save_steps", "trainer.save_freq", ""},
    {"TRL", "save_strategy", "trainer.save_freq", ""},
    {"TRL", "save_total_limit", "trainer.max_ckpt_to_keep", ""},
    {"TRL", "eval_steps", "trainer.test_freq", ""},
    {"TRL", "eval_strategy", "trainer.test_freq", ""},
    {"TRL", "resume_from_checkpoint", "trainer.resume", ""},
    {"TRL", "log_completions", "trainer.rollout_save_freq", "RUN/rollouts, opened by orrery "
                                                            "rollouts"},
    {"TRL", "ref_model_mixup_alpha", "", "the reference model stays as it was when RL began"},
    {"TRL", "sync_ref_model", "", "the reference model stays as it was when RL began"},
    {"OpenRLHF", "pretrain", "model.path", "a folder on disk; nothing is downloaded"},
    {"OpenRLHF", "prompt_data", "data.train_files", "JSONL on disk; nothing is downloaded"},
    {"OpenRLHF", "eval_dataset", "data.val_files", "JSONL on disk"},
    {"OpenRLHF", "input_key", "", "rows have \"prompt\", \"question\" or \"problem\" "
                                  "(docs/formats.md)"},
    {"OpenRLHF", "label_key", "", "rows have reward_model.ground_truth, "
                                  "or \"answer\" (docs/formats.md)"},
    {"OpenRLHF", "input_template", "data.prompt_template", ""},
    {"OpenRLHF", "prompt_max_len", "data.max_prompt_length", ""},
    {"OpenRLHF", "generate_max_len", "data.max_response_length", ""},
    {"OpenRLHF", "max_samples", "", "shorten the file: head -n N train.jsonl"},
    {"OpenRLHF", "rollout_batch_size", "data.train_batch_size", "prompts"},
    {"OpenRLHF", "train_batch_size", "actor.ppo_mini_batch_size", "of OpenRLHF, which counts "
                                                                  "samples there: "
                                                                  "divide by rollout.n; "
                                                                  "verl's is "
                                                                  "data.train_batch_size"},
    {"OpenRLHF", "micro_train_batch_size", "actor.ppo_max_token_len_per_gpu", "tokens, not "
                                                                              "samples; "
                                                                              "changes memory and "
                                                                              "speed, not results"},
    {"OpenRLHF", "micro_rollout_batch_size", "rollout.max_num_seqs", "sequences generated at once "
                                                                     "on a rank"},
    {"OpenRLHF", "n_samples_per_prompt", "rollout.n", ""},
    {"OpenRLHF", "eval_n_samples_per_prompt", "rollout.val_n", ""},
    {"OpenRLHF", "eval_temperature", "rollout.val_temperature", ""},
    {"OpenRLHF", "max_epochs", "actor.ppo_epochs", ""},
    {"OpenRLHF", "num_episodes", "trainer.total_training_steps", "steps: episodes times prompts "
                                                                 "divided by "
                                                                 "data.train_batch_size"},
    {"OpenRLHF", "advantage_estimator", "algorithm.adv_estimator", "group_norm is grpo, "
                                                                   "dr_grpo is grpo with "
                                                                   "norm_adv_by_std_in_grpo false, "
                                                                   "reinforce_baseline is "
                                                                   "reinforce-plus-plus-baseline; "
                                                                   "there is no critic yet, "
                                                                   "so no gae"},
    {"OpenRLHF", "no_advantage_std_norm", "algorithm.norm_adv_by_std_in_grpo", "false"},
    {"OpenRLHF", "actor_learning_rate", "actor.optim.lr", ""},
    {"OpenRLHF", "critic_learning_rate", "", "there is no critic yet"},
    {"OpenRLHF", "critic_pretrain", "", "there is no critic yet"},
    {"OpenRLHF", "lr_warmup_ratio", "actor.optim.lr_warmup_steps", "steps: the ratio times "
                                                                   "trainer.total_training_steps"},
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
    {"OpenRLHF", "remote_rm_url", "data.external.command", "with data.env external: "
                                                           "a program that asks your server"},
    {"OpenRLHF", "agent_func_path", "data.external.command", "with data.env external: "
                                                             "a multi-turn program (examples/)"},
    {"OpenRLHF", "dynamic_filtering", "", "groups whose rewards are all equal are kept; "
                                          "they add nothing to the gradient"},
    {"OpenRLHF", "zero_stage", "", "the optimizer's state is sharded over the learners always: "
                                   "leave it out"},
    {"OpenRLHF", "vllm_num_engines", "cluster.placement", "colocated ranks both learn and "
                                                          "generate; split: mpirun's other ranks "
                                                          "generate"},
    {"OpenRLHF", "vllm_tensor_parallel_size", "", "there is no tensor parallelism yet"},
    {"OpenRLHF", "colocate_all_models", "cluster.placement", "colocated is the default"},
    {"OpenRLHF", "async_train", "", "steps are synchronous: there is no async training yet"},
    {"OpenRLHF", "ring_attn_size", "", "there is no sequence parallelism yet"},
    {"OpenRLHF", "packing_samples", "", "sequences are never padded: leave it out"},
    {"OpenRLHF", "save_path", "run_dir", ""},
    {"OpenRLHF", "ckpt_path", "run_dir", ""},
    {"OpenRLHF", "max_ckpt_num", "trainer.max_ckpt_to_keep", ""},
    {"OpenRLHF", "load_checkpoint", "trainer.resume", "auto is the default"},
    {"OpenRLHF", "use_wandb", "trainer.tensorboard", "metrics.jsonl is always written; "
                                                     "wandb and MLflow import TensorBoard's files"},
    {"OpenRLHF", "use_tensorboard", "trainer.tensorboard", "true or false; the files are in "
                                                           "run_dir"},
    {"NeMo-RL", "policy.model_name", "model.path", "a folder on disk; nothing is downloaded"},
    {"NeMo-RL", "policy.tokenizer.name", "model.path", "the tokenizer is read from the model's "
                                                       "folder"},
    {"NeMo-RL", "policy.tokenizer.chat_template", "model.chat_template_file", "a Jinja file"},
    {"NeMo-RL", "policy.precision", "model.compute_dtype", "f32 or bf16; master weights are f32 "
                                                           "always"},
    {"NeMo-RL", "policy.train_global_batch_size", "actor.ppo_mini_batch_size", "samples there, "
                                                                               "prompts here: "
                                                                               "divide by "
                                                                               "rollout.n"},
    {"NeMo-RL", "policy.train_micro_batch_size", "actor.ppo_max_token_len_per_gpu", "tokens, "
                                                                                    "not samples; "
                                                                                    "changes "
                                                                                    "memory and "
                                                                                    "speed, "
                                                                                    "not results"},
    {"NeMo-RL", "policy.logprob_batch_size", "", "there is no pass for old log-probs: "
                                                 "the engine's are the learner's to the bit; "
                                                 "leave it out"},
    {"NeMo-RL", "policy.max_total_sequence_length", "data.max_prompt_length, data.max_response_length", "their sum"},
    {"NeMo-RL", "policy.max_grad_norm", "actor.optim.clip_grad", ""},
    {"NeMo-RL", "policy.optimizer.kwargs.lr", "actor.optim.lr", ""},
    {"NeMo-RL", "policy.optimizer.kwargs.weight_decay", "actor.optim.weight_decay", ""},
    {"NeMo-RL", "policy.generation.backend", "", "there is one engine, of the learner's own "
                                                 "kernels: leave it out"},
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
    {"NeMo-RL", "grpo.val_at_start", "trainer.test_freq", "validation comes before the first step "
                                                          "whenever test_freq is not 0"},
    {"NeMo-RL", "grpo.max_val_samples", "data.val_size", ""},
    {"NeMo-RL", "grpo.seed", "seed", ""},
    {"NeMo-RL", "loss_fn.reference_policy_kl_penalty", "actor.kl_loss_coef", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_min", "actor.clip_ratio_low", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_max", "actor.clip_ratio_high", ""},
    {"NeMo-RL", "loss_fn.ratio_clip_c", "actor.clip_ratio_c", ""},
    {"NeMo-RL", "loss_fn.token_level_loss", "actor.loss_agg_mode", "token-mean"},
    {"NeMo-RL", "loss_fn.use_importance_sampling_correction", "", "rollout and training run the "
                                                                  "same kernels: there is nothing "
                                                                  "to correct"},
    {"NeMo-RL", "checkpointing.checkpoint_dir", "run_dir", ""},
    {"NeMo-RL", "checkpointing.save_period", "trainer.save_freq", ""},
    {"NeMo-RL", "checkpointing.keep_top_k", "trainer.max_ckpt_to_keep", "the newest, not the best"},
    {"NeMo-RL", "logger.log_dir", "run_dir", ""},
    {"NeMo-RL", "logger.tensorboard_enabled", "trainer.tensorboard", ""},
    {"NeMo-RL", "logger.wandb_enabled", "trainer.tensorboard", "metrics.jsonl is always written; "
                                                               "wandb and MLflow import "
                                                               "TensorBoard's files"},
    {"NeMo-RL", "cluster.gpus_per_node", "", "ranks are the launcher's: "
                                             "mpirun -n, orrery launch -n, or Slurm"},
    {"NeMo-RL", "cluster.num_nodes", "", "ranks are the launcher's: "
                                         "mpirun -n, orrery launch -n, or Slurm"},
};
// clang-format on

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
    {"sft.optim.lr_scheduler_type", "wsd", "there is none yet: constant, cosine and linear are"},
    {"sft.optim.lr_scheduler_type", "cosine-with-min-lr", "it is cosine, with min_lr_ratio"},
    {"sft.optim.lr_scheduler_type", "constant-with-warmup", "it is constant, with lr_warmup_steps"},
    {"model.compute_dtype", "bfloat16", "it is bf16"},
    {"model.compute_dtype", "float32", "it is f32"},
    {"model.compute_dtype", "fp32", "it is f32"},
    {"model.compute_dtype", "fp16", "there is no fp16 yet: f32 or bf16"},
    {"model.compute_dtype", "float16", "there is no fp16 yet: f32 or bf16"},
    {"rollout.compute_dtype", "bfloat16", "it is bf16"},
    {"rollout.compute_dtype", "float32", "it is f32"},
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

constexpr std::string_view kPrefix = "actor_rollout_ref.";

std::string_view leaf(std::string_view key) {
  const size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

bool is_section(const ForeignKey& entry) { return entry.key.ends_with('.'); }

/// `name` is the end of `key`, from a dot on.
bool is_end_of(std::string_view name, std::string_view key) {
  return key.size() > name.size() && key.ends_with(name) &&
         key[key.size() - name.size() - 1] == '.';
}

/// Words that say nothing without the section they stand in.
bool is_vague(std::string_view word) {
  constexpr std::string_view kVague[] = {"name", "mode", "path", "model", "dtype", "optimizer"};
  return word.size() < 3 ||
         std::find(std::begin(kVague), std::end(kVague), word) != std::end(kVague);
}

/// Lower is nearer.
enum class Match { kWhole, kEnd, kSection, kLeaf, kNone };

/// `section` without its dot. Sections before it may be left out: kl_ctrl.horizon.
Match match_section(std::string_view name, std::string_view section) {
  if (name == section) return Match::kWhole;
  for (std::string_view end = section;;) {
    if (name == end || (name.starts_with(end) && name[end.size()] == '.')) return Match::kSection;
    const size_t dot = end.find('.');
    if (dot == std::string_view::npos) return Match::kNone;
    end = end.substr(dot + 1);
  }
}

Match match(std::string_view name, const ForeignKey& entry) {
  if (is_section(entry)) return match_section(name, entry.key.substr(0, entry.key.size() - 1));
  if (name == entry.key) return Match::kWhole;
  const bool dotted = name.find('.') != std::string_view::npos;
  if (dotted && is_end_of(name, entry.key)) return Match::kEnd;
  return leaf(name) == leaf(entry.key) && !is_vague(leaf(name)) ? Match::kLeaf : Match::kNone;
}

/// "a", "a and b".
std::string both(std::string_view keys) {
  const size_t comma = keys.find(", ");
  if (comma == std::string_view::npos) return std::string(keys);
  return fmt::format("{} and {}", keys.substr(0, comma), keys.substr(comma + 2));
}

std::string text_of(const ForeignKey& entry) {
  std::string name(entry.key);
  if (is_section(entry)) name.pop_back();
  std::string text = entry.ours.empty()
                         ? fmt::format("{}'s {} has no counterpart here", entry.program, name)
                         : fmt::format("{}'s {} is {} here", entry.program, name, both(entry.ours));
  if (!entry.note.empty()) text += fmt::format(": {}", entry.note);
  return text;
}

}  // namespace

std::span<const ForeignKey> foreign_keys() { return kKeys; }
std::span<const ForeignValue> foreign_values() { return kValues; }

std::string foreign_key_advice(std::string_view written, bool exact) {
  if (written.size() > 200) return "";
  std::string name(written);
  std::replace(name.begin(), name.end(), '-', '_');  // as command lines write them
  if (exact && name.starts_with(kPrefix)) {
    const std::string rest = name.substr(kPrefix.size());
    const std::vector<std::string> own = all_keys(*proto::Config::descriptor());
    if (std::find(own.begin(), own.end(), rest) != own.end())
      return fmt::format("verl's {} is {} here", name, rest);
  }
  const ForeignKey* best = nullptr;
  Match nearest = Match::kNone;
  for (const ForeignKey& entry : kKeys) {
    const Match found = match(name, entry);
    const bool longer = found == Match::kSection && nearest == Match::kSection && best != nullptr &&
                        entry.key.size() > best->key.size();
    if (found < nearest || longer) {
      nearest = found;
      best = &entry;
    }
  }
  if (best == nullptr || (exact && nearest > Match::kSection) ||
      (!exact && nearest <= Match::kSection))
    return "";
  return text_of(*best);
}

std::string foreign_value_advice(std::string_view key, std::string_view word) {
  for (const ForeignValue& entry : kValues) {
    if (entry.key == key && entry.word == word) return std::string(entry.note);
  }
  return "";
}

}  // namespace orrery::config
