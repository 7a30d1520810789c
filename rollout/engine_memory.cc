#include "rollout/engine_memory.h"

#include <algorithm>

#include "core/device.h"
#include "core/error.h"
#include "kernels/sampling.h"
#include "rollout/block_manager.h"

namespace orrery::rollout {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;  // the most logits [rows, vocab] at a time

/// Bytes that no step exceeds: one that decodes as many sequences as there may be, of
/// the greatest length, and reads prompts with the rows that are left. The last prompt
/// draws for all its samples; an eighth is for what prompts in many pieces add to
/// tables.
size_t largest_step(const EngineConfig& config, const models::Transformer& model, Device device) {
  const int64_t rows = config.max_num_batched_tokens, length = config.max_model_len;
  const int64_t draws = config.max_num_seqs + config.most_samples;
  const int64_t decodes = std::min(draws, rows);
  const Array<int32_t> of_rows(rows), table(BlockManager::blocks_for(length));
  Array<kernels::KvSegment> segments;
  for (int64_t i = 0; i < decodes; ++i) segments.push_back({i, 1, length - 1, table});
  for (int64_t row = decodes; row < rows;) {
    const int64_t count = std::min(rows - row, length);
    segments.push_back({row, count, length - count, table});
    row += count;
  }
  Arena count = Arena::measuring(device);
  measure_step(model, {of_rows, of_rows, segments, Span(of_rows).first(segments.size())}, draws,
               draws, count);
  return count.peak() + count.peak() / 8;
}

/// Divides config.memory into keys and values and the rest.
void divide_memory(EngineConfig& config, const models::Transformer& model, Device device) {
  const size_t bytes = static_cast<size_t>(config.memory.size) * sizeof(float),
               step = largest_step(config, model, device),
               block =
                   models::KvCache::bytes_per_block(model.config(), model.compute_dtype(), device),
               least = block * (BlockManager::blocks_for(config.max_model_len) + 1);
  if (bytes < step + least) {
    fail(
        "out of memory: {:.1f} MiB are left on {}; a step of the rollout engine needs {:.1f} of "
        "temporary memory, and one sequence of {} tokens {:.1f} of keys and values; lower "
        "rollout.max_num_batched_tokens, rollout.max_num_seqs or data.max_response_length",
        bytes * 0x1p-20, device_name(device), step * 0x1p-20, config.max_model_len,
        least * 0x1p-20);
  }
  config.kv_cache_bytes = bytes - step;
}

}  // namespace

int64_t draws_at_once(const models::Transformer& model, int64_t draws) {
  const int64_t row = model.config().vocab_size * int64_t{sizeof(float)};
  return std::min(draws, std::max<int64_t>(1, kLogitsBytes / row));
}

void measure_step(const models::Transformer& model, const models::ForwardBatch& batch,
                  int64_t copies, int64_t draws, Arena& arena) {
  {
    const ArenaScope scope(arena);
    arena.alloc<BlockCopy>(copies);
  }
  arena.act_mat(model.compute_dtype(), batch.output_rows.size(), model.config().hidden_size);
  models::measure_forward(model, batch, arena);
  const int64_t at_once = draws_at_once(model, draws);
  arena.alloc<kernels::SamplingParams>(draws);
  for (int i = 0; i < 2; ++i) arena.alloc<float>(draws);
  arena.vec<float>(3 * draws);
  arena.mat<float>(at_once, model.config().vocab_size);
  arena.alloc<int32_t>(at_once);
}

EngineConfig resolve(EngineConfig config, const models::Transformer& transformer, Device device) {
  const models::ModelConfig& model = transformer.config();
  if (config.max_num_seqs < 1 || config.max_num_batched_tokens < 1 || config.kv_blocks < 0 ||
      config.max_model_len < 0) {
    fail_usage(
        "engine: max_num_seqs {}, max_num_batched_tokens {}, kv_blocks {}, max_model_len {}: "
        "the first two must be at least 1, the others at least 0",
        config.max_num_seqs, config.max_num_batched_tokens, config.kv_blocks, config.max_model_len);
  }
  if (config.max_model_len > model.max_position_embeddings) {
    fail_usage("engine: max_model_len {} is more than the model's max_position_embeddings {}",
               config.max_model_len, model.max_position_embeddings);
  }
  if (config.max_model_len == 0) config.max_model_len = model.max_position_embeddings;
  const size_t block_bytes =
      models::KvCache::bytes_per_block(model, transformer.compute_dtype(), device);
  if (!config.memory.empty()) divide_memory(config, transformer, device);
  if (config.kv_blocks == 0) {
    const int64_t affordable = config.kv_cache_bytes / block_bytes;
    if (affordable < 1) {
      fail_usage("engine: kv_cache_bytes {} is less than one KV block of this model, {} bytes",
                 config.kv_cache_bytes, block_bytes);
    }
    // One more block per sequence: a group keeps its prompt's last block beside the
    // copies that its samples have.
    const int64_t each = BlockManager::blocks_for(config.max_model_len) + 1;
    config.kv_blocks =
        config.max_num_seqs > affordable / each ? affordable : config.max_num_seqs * each;
  }
  if (config.kv_blocks > INT32_MAX)
    fail_usage("engine: kv_blocks {} is more than {}", config.kv_blocks, INT32_MAX);
  if (!config.memory.empty()) {
    ORRERY_CHECK(config.kv_blocks * block_bytes <= config.kv_cache_bytes,
                 "{} KV blocks of {} bytes", config.kv_blocks, block_bytes);
    const auto floats = static_cast<int64_t>(config.kv_blocks * block_bytes / sizeof(float));
    config.kv_memory = config.memory.part(0, floats);
    config.memory = config.memory.part(floats, config.memory.size - floats);
  }
  return config;
}

Arena make_arena(const EngineConfig& config, Device device) {
  return config.memory.empty() ? Arena(device) : Arena::over(device, config.memory);
}

}  // namespace orrery::rollout
