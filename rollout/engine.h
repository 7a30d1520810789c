// The rollout engine: continuous batching over a paged KV cache. A group's prompt is
// computed once, and its n samples share its full blocks (the last, partly filled block
// is copied). step() schedules rows, runs the model over them, draws tokens from the
// logits, and postprocesses: appends the tokens to their samples and hands out those
// that are finished.
//
// A sample's tokens depend only on (seed, step, prompt_index, sample index, weights,
// prompt, sampling): not on what else is in the batch, nor on chunking, preemption or
// threads. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "models/transformer.h"
#include "rollout/request.h"
#include "rollout/trajectory.h"
#include "text/tokenizer.h"

namespace orrery::rollout {

struct EngineConfig {
  int64_t max_num_seqs = 128;             ///< sequences decoded at once
  int64_t max_num_batched_tokens = 1024;  ///< rows of one forward (prefill chunks + decodes)
  /// Blocks of KvCache::block_tokens() tokens. 0: enough for max_num_seqs sequences of
  /// max_model_len, but no more than kv_cache_bytes.
  int64_t kv_blocks = 0;
  size_t kv_cache_bytes = size_t{1} << 30;  ///< upper limit when kv_blocks is 0
  /// Longest prompt and response together. 0: the model's max_position_embeddings.
  int64_t max_model_len = 0;
  /// Memory for keys and values that others may use while the engine has no work, up to
  /// the first submit() after a set_weight_version(): a colocated learner keeps its
  /// gradients there. Must outlive the engine. Where it is too small, the engine takes
  /// memory of its own.
  Vec<float> kv_memory;
  /// Likewise, for keys and values and the temporaries of a step: the engine then takes
  /// no memory of its own, and kv_cache_bytes is what the largest step leaves of it.
  Vec<float> memory;
  int64_t most_samples = 1;  ///< of a request, for the size of the largest step
};

struct EngineStats {
  int64_t steps = 0, prefill_tokens = 0, decode_tokens = 0, preemptions = 0,
          shared_prompt_tokens = 0;
  int64_t kv_blocks_in_use = 0, kv_blocks = 0;
  double forward_seconds = 0, sample_seconds = 0;
};

/// The model yields NaN, because its weights hold NaN or its activations overflow.
class NotFiniteError : public Error {
 public:
  using Error::Error;
};

class Engine {
 public:
  /// `model` and `tokenizer` (may be null when no request has stop strings) must
  /// outlive the engine.
  Engine(const Context& ctx, const models::Transformer& model, const text::Tokenizer* tokenizer,
         const EngineConfig& config);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request. Error when the prompt is empty, has ids outside the vocabulary,
  /// or leaves no room to generate within max_model_len or the KV cache (names
  /// prompt_index, lengths and limits).
  void submit(GenerateRequest request);

  bool has_work() const;

  /// One forward over the scheduled rows; returns the samples that finished.
  /// NotFiniteError when the model yields NaN; after any Error abort_all() comes next.
  std::vector<GenerateResult> step();

  /// Runs step() until no work is left; results sorted by (prompt_index, sample_index).
  std::vector<GenerateResult> run();

  /// Call it when the weights have changed (after Transformer::pack) and no work is in
  /// flight: keys and values of old weights are never reused, and config.kv_memory may
  /// have been written to. Later tokens carry this version.
  void set_weight_version(uint64_t version);

  /// Drops all work and frees its blocks.
  void abort_all();

  int64_t max_num_seqs() const;
  const EngineStats& stats() const;
  Device device() const;
  Fingerprint fingerprint() const;
  size_t memory_bytes() const;  ///< of temporaries and the KV cache, unless it is lent

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The uniform number by which a token is drawn: a pure function of these five numbers,
/// where `position` is the token's index in the response. It takes two Philox calls.
/// The first turns (prompt_index, step) into a 128-bit stream of the seed; the second
/// draws at (sample_index, position) of that stream. Distinct arguments never share a
/// Philox block while step < 2^56.
float sample_uniform(uint64_t seed, uint64_t step, uint64_t prompt_index, uint32_t sample_index,
                     uint32_t position);

}  // namespace orrery::rollout
