// The rollout engine: continuous batching over a paged KV cache. A group's prompt is
// computed once and its full blocks are shared by its n samples (the last, partly
// filled block is copied). step() = schedule, run, postprocess.
//
// A sample's tokens depend on (seed, step, prompt_index, sample index, weights, prompt,
// sampling) alone: not on what else is in the batch, chunking, preemption or threads.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "kernels/sampling.h"
#include "models/transformer.h"
#include "rollout/trajectory.h"
#include "text/tokenizer.h"

namespace orrery::rollout {

struct EngineConfig {
  int64_t max_num_seqs = 128;             ///< sequences decoded at once
  int64_t max_num_batched_tokens = 1024;  ///< rows of one forward (prefill chunks + decodes)
  int64_t kv_blocks =
      0;  ///< blocks of kKvBlock tokens; 0: enough for max_num_seqs * max_model_len, at most kv_cache_bytes
  size_t kv_cache_bytes = size_t{1} << 30;  ///< upper limit when kv_blocks is 0
  int64_t max_model_len = 0;  ///< longest prompt + response; 0: the model's max_position_embeddings
  /// Memory for keys and values that others use while the engine has no work, up to the
  /// next set_weight_version: a colocated learner's gradients. Must outlive the engine;
  /// where it is too small the engine takes its own.
  std::span<float> kv_memory;
};

/// One prompt, n samples of it.
struct GenerateRequest {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint64_t prompt_index = 0;
  uint32_t first_sample = 0;  ///< sample index of the first of n
  uint32_t n = 1;
  std::vector<int32_t> prompt;  ///< at least one token
  uint32_t generated_before =
      0;  ///< response tokens already in `prompt` (a later turn): offsets the RNG position
  kernels::SamplingParams sampling;
  int64_t max_new_tokens = 16;
  std::vector<int32_t>
      stop_token_ids;  ///< kept as the last token of the sample, but no part of its text
  std::vector<std::string>
      stop_strings;  ///< generation ends when the response contains one (rollout/stop.h)
};

/// One finished sample. Arrays have one entry a token.
struct GenerateResult {
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs, entropies;
  std::vector<uint64_t> weight_versions;
  FinishReason finish_reason = FinishReason::kStop;
  bool ends_in_stop_id =
      false;  ///< the last token is one of stop_token_ids, or a stop string as an id

  /// The tokens whose text is the response: all but a stop id.
  std::span<const int32_t> text_tokens() const {
    return std::span(tokens).first(tokens.size() - (ends_in_stop_id ? 1 : 0));
  }
};

struct EngineStats {
  int64_t steps = 0, prefill_tokens = 0, decode_tokens = 0, preemptions = 0,
          shared_prompt_tokens = 0;
  int64_t kv_blocks_in_use = 0, kv_blocks = 0;
  double forward_seconds = 0, sample_seconds = 0;
};

/// The model yields NaN: its weights hold NaN, or its activations overflow.
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

  /// Weights changed (after Transformer::pack): later tokens carry this version. Must
  /// be called with no work in flight: KV of old weights is never reused, and
  /// config.kv_memory may have been written to.
  void set_weight_version(uint64_t version);

  /// Drops all work and frees its blocks.
  void abort_all();

  int64_t max_num_seqs() const;
  const EngineStats& stats() const;
  Fingerprint fingerprint() const;
  size_t memory_bytes() const;  ///< KV cache, unless it is lent, and temporaries

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The draw of a token: pure function of these five numbers. `position`: index in the
/// response. Two Philox calls: the first makes (prompt_index, step) a 128-bit stream of
/// the seed's, the second draws at (sample_index, position) of that stream. Distinct
/// numbers never share a Philox block while step < 2^56.
float sample_uniform(uint64_t seed, uint64_t step, uint64_t prompt_index, uint32_t sample_index,
                     uint32_t position);

}  // namespace orrery::rollout
