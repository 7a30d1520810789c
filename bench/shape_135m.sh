# Sourced by bench/save.sh and bench/stop.sh: a training run of a model of 135M parameters,
# SmolLM2-135M's shape with random weights and the quickstart's tokenizer and problems.
orrery=${ORRERY:-build/release/bin/orrery}
work=$(mktemp -d "${FOLDER:-${TMPDIR:-/tmp}}/orrery-135m-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/model"
cp experiments/quickstart_model/tokenizer*.json "$work/model/"
cat > "$work/model/config.json" <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536,
 "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
 "max_position_embeddings": 256, "rope_theta": 10000.0, "rms_norm_eps": 1e-05, "tie_word_embeddings": true, "bos_token_id": 1,
 "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.04, "torch_dtype": "float32"}
JSON
train_135m=("$orrery" train experiments/quickstart.yaml "run_dir=$work/run" "model.path=$work/model" sft.total_training_steps=0
  trainer.test_freq=0 trainer.rollout_save_freq=0 trainer.tensorboard=false trainer.max_ckpt_to_keep=1)
