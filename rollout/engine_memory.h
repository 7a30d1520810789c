// What an engine needs of memory, and how it divides what it is given.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "models/transformer.h"
#include "rollout/engine.h"

namespace orrery::rollout {

/// Draws, of so many, whose logits are in memory at once.
int64_t draws_at_once(const models::Transformer& model, int64_t draws);

/// Takes from `arena`, which measures, what a step takes, in its order: `copies` of
/// blocks before the forward, `draws` of tokens after it.
void measure_step(const models::Transformer& model, const models::ForwardBatch& batch,
                  int64_t copies, int64_t draws, Arena& arena);

/// The config with its lengths, its number of KV blocks and, where memory is given, the
/// part that is for keys and values (kv_memory) and the part that is for temporaries
/// (memory). Usage Error for what does not fit the model; Error for too little memory.
EngineConfig resolve(EngineConfig config, const models::Transformer& model, Device device);

/// For a step's temporaries; `config` is resolve()'s.
Arena make_arena(const EngineConfig& config, Device device);

}  // namespace orrery::rollout
