// attention_forward, attention_backward, kv_write, kv_copy and kv_clear; of
// rope_kv_write the batches.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_pool.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

/// [begin, end) of a sequence, which a batch computes.
struct Positions {
  int64_t begin, end;
};

/// A batch of spans, each of a sequence of its own.
struct AttentionCase : Case {
  AttentionShape shape;
  List<Positions, 4> spans;
  float size = 1.0f;  ///< of q and k
};

/// A case's keys and queries in rows, one sequence behind the other, each sequence's
/// keys in blocks of its own. Segments point into `tables`.
struct SpanLayout {
  std::vector<std::vector<int32_t>> tables;
  std::vector<KvSegment> sequences, spans;
  int64_t keys = 0, queries = 0;
  int32_t blocks = 0;

  explicit SpanLayout(const AttentionCase& c) {
    tables.reserve(static_cast<size_t>(c.spans.size()));
    for (const Positions& span : c.spans) {
      std::vector<int32_t>& table = tables.emplace_back();
      for (int64_t at = 0; at < span.end; at += kKvBlock) table.push_back(blocks++);
      sequences.push_back({keys, span.end, 0, table});
      spans.push_back({queries, span.end - span.begin, span.begin, table});
      keys += span.end;
      queries += span.end - span.begin;
    }
  }
  SpanLayout(const SpanLayout&) = delete;
  SpanLayout& operator=(const SpanLayout&) = delete;
};

inline constexpr AttentionCase kAttentionCases[] = {
    {{"one_token", kOracle}, {1, 1, 2}, {{0, 1}}},
    {{"three_tiles", kOracle}, {1, 1, 8}, {{0, 70}, {3, 4}}},
    {{"edges_of_tiles", kOracle}, {2, 1, 10}, {{0, 33}, {31, 34}}},
    {{"no_shared_heads", kOracle}, {3, 3, 16}, {{0, 65}, {64, 65}, {20, 21}}},
    {{"head_dim_64", kOracle}, {9, 3, 64}, {{0, 130}, {200, 201}, {95, 96}, {40, 77}}},
    {{"groups_of_7", kOracle}, {14, 2, 64}, {{150, 151}, {0, 40}, {127, 129}}},
    {{"head_dim_80", kOracle}, {5, 1, 80}, {{0, 45}, {300, 301}}},
    {{"head_dim_96", kOracle}, {8, 1, 96}, {{0, 31}, {64, 65}}},
    {{"head_dim_128", kOracle}, {16, 1, 128}, {{0, 32}, {140, 142}}},
    {{"groups_of_60", kOracle}, {60, 1, 24}, {{0, 3}, {33, 34}}},
    {{"head_dim_256", kOracle}, {2, 2, 256}, {{0, 20}}},
    {{"head_dim_1024", kOracle}, {2, 1, 1024}, {{0, 37}}},
    {{"large_scores", kOracle}, {4, 2, 32}, {{0, 150}}, 300.0f},
    {{"equal_scores", kOracle}, {4, 2, 32}, {{0, 70}}, 0.0f},
};

/// Consecutive tokens that see their parent's, or nobody's before them.
struct Node {
  int64_t rows = 1;
  int32_t parent = -1;
};

/// Trees of segments, in list order.
struct AttentionTreeCase : Case {
  AttentionShape shape;
  List<Node, 9> nodes;
  float size = 1.0f;  ///< of q and k
};

inline constexpr AttentionTreeCase kAttentionTreeCases[] = {
    {{"one_token", kOracle}, {1, 1, 2}, {{1}}},
    {{"three_tiles", kOracle}, {1, 1, 8}, {{70}}},
    {{"two_children", kOracle}, {2, 1, 10}, {{33}, {5, 0}, {40, 0}}},
    {{"two_trees", kOracle}, {3, 3, 16}, {{65}, {7}, {20, 0}, {1, 1}}},
    {{"head_dim_64", kOracle}, {9, 3, 64}, {{45}, {33, 0}, {32, 0}, {70, 0}, {90}}},
    {{"groups_of_7", kOracle}, {14, 2, 64}, {{40}, {13, 0}, {25, 0}}},
    {{"head_dim_80", kOracle}, {5, 1, 80}, {{45}, {11, 0}}},
    {{"five_levels", kOracle},
     {8, 2, 24},
     {{10}, {20, 0}, {5, 0}, {35, 1}, {6, 2}, {31, 3}, {4, 1}, {9}, {2, 7}}},
    {{"head_dim_128", kOracle}, {16, 1, 128}, {{20}, {15, 0}}},
    {{"empty_segments", kOracle}, {4, 2, 16}, {{0}, {9, 0}, {0, 1}, {8, 2}, {0, 3}}},
    {{"groups_of_60", kOracle}, {60, 1, 24}, {{3}, {3, 0}}},
    {{"head_dim_1024", kOracle}, {2, 1, 1024}, {{9}}},
    {{"groups_of_key_tiles", kOracle}, {2, 1, 16}, {{300}}},
    {{"large_scores", kOracle}, {4, 2, 32}, {{50}, {20, 0}}, 200.0f},
    {{"equal_scores", kOracle}, {4, 2, 32}, {{40}}, 0.0f},
    {{"gradient_three_levels", kDifferences}, {2, 1, 8}, {{13}, {5, 0}, {9, 0}, {4, 1}}},
    {{"gradient_two_trees", kDifferences}, {4, 2, 16}, {{35}, {3}}},
    {{"gradient_groups_of_3", kDifferences}, {6, 2, 10}, {{4}, {3, 0}, {2, 1}}},
};

/// The benchmark's batches. Each of `groups` has `samples` runs of `rows` tokens after
/// a prompt of `prompt` tokens that they share (0: none). Where `context` is set, each
/// sample decodes one token, the last of that many.
struct AttentionBatchCase : Case {
  int64_t groups, prompt, samples, rows;
  int64_t context = 0;
  DType dtype = DType::kF32;
  constexpr int64_t sequences() const { return groups * samples; }
  constexpr int64_t tokens() const { return groups * (prompt + samples * rows); }
};

/// Each is for every one of kModels.
inline constexpr AttentionBatchCase kAttentionBatchCases[] = {
    {{"decode", kBenchForward}, 1, 0, 1, 1, 160},
    {{"decode", kBenchForward}, 8, 0, 1, 1, 160},
    {{"decode_shared", kBenchForward}, 1, 64, 8, 1, 160},
    {{"decode", kBenchForward}, 64, 0, 1, 1, 160},
    {{"decode_shared", kBenchForward}, 8, 64, 8, 1, 160},
    {{"decode", kBenchForward}, 128, 0, 1, 1, 160},
    {{"decode_shared", kBenchForward}, 8, 64, 16, 1, 160},
    {{"decode", kBenchForward}, 1, 0, 1, 1, 576},
    {{"decode", kBenchForward}, 8, 0, 1, 1, 576},
    {{"decode_shared", kBenchForward}, 1, 512, 8, 1, 576},
    {{"decode", kBenchForward}, 64, 0, 1, 1, 576},
    {{"decode_shared", kBenchForward}, 8, 512, 8, 1, 576},
    {{"decode", kBenchForward}, 128, 0, 1, 1, 576},
    {{"decode_shared", kBenchForward}, 8, 512, 16, 1, 576},
    {{"prefill", kBenchForward}, 1, 0, 1, 512},
    {{"decode_bf16", kBenchForward}, 1, 0, 1, 1, 256, DType::kBF16},
    {{"decode_bf16", kBenchForward}, 1, 0, 1, 1, 1024, DType::kBF16},
    {{"decode_bf16", kBenchForward}, 8, 0, 1, 1, 576, DType::kBF16},
    {{"decode_bf16", kBenchForward}, 64, 0, 1, 1, 160, DType::kBF16},
    {{"decode_shared_bf16", kBenchForward}, 8, 64, 8, 1, 160, DType::kBF16},
    {{"prefill_bf16", kBenchForward}, 1, 0, 1, 512, 0, DType::kBF16},
    {{"group", kBench}, 1, 60, 8, 128},
    {{"plain", kBench}, 1, 0, 8, 256},
};

/// Batches that write to one pool of kBlocks blocks, in order. The first rows of each
/// belong to no segment, nor does one between two segments. Segments point into
/// `tables`.
struct KvWriteBatches {
  /// Of the last one nothing is ever written.
  static constexpr int64_t kBlocks = 12;
  /// Some positions of a sequence.
  struct Part {
    int64_t sequence, position, rows;
  };
  struct Batch {
    int64_t rows = 0;
    std::vector<KvSegment> segments;
  };
  /// Blocks of a sequence are not neighbours.
  std::vector<std::vector<int32_t>> tables{{9, 2, 5, 0}, {1, 8}, {3}, {4, 7, 10}, {6}};
  std::vector<Batch> batches;

  KvWriteBatches() {
    add({{0, 0, 70}, {1, 0, 32}, {2, 0, 5}, {3, 0, 65}, {4, 0, 31}});
    // One token each: behind others, in a block's last slot, and in a fresh block.
    add({{0, 70, 1}, {1, 32, 1}, {2, 5, 1}, {4, 31, 1}});
    // Positions that are written again: what lies behind them goes in blocks that the
    // segment begins, and stays in others.
    add({{0, 10, 30}, {1, 33, 20}, {3, 32, 33}, {2, 0, 2}, {4, 3, 10}});
    add({{3, 1, 95}, {0, 64, 64}});
  }
  KvWriteBatches(const KvWriteBatches&) = delete;
  KvWriteBatches& operator=(const KvWriteBatches&) = delete;

 private:
  void add(const std::vector<Part>& parts) {
    Batch& batch = batches.emplace_back();
    batch.rows = 2;
    for (const Part& part : parts) {
      batch.segments.push_back({batch.rows, part.rows, part.position, tables[part.sequence]});
      batch.rows += part.rows + 1;
    }
  }
};

/// kv_write and rope_kv_write; the oracle of the former is attention's, which reads
/// what it wrote.
inline constexpr AttentionBatchCase kKvWriteCases[] = {
    {{"prefill", kBenchForward}, 1, 0, 1, 512},
    {{"decode", kBenchForward}, kDecodeRows, 0, 1, 1, 160},
    {{"prefill_bf16", kBenchForward}, 1, 0, 1, 512, 0, DType::kBF16},
    {{"decode_bf16", kBenchForward}, kDecodeRows, 0, 1, 1, 160, DType::kBF16},
};

/// The first `slots` of a block, to another one.
struct KvCopyCase : Case {
  AttentionShape shape;
  int64_t slots;
};

constexpr AttentionShape attention_shape(const ModelShape& model) {
  return {model.heads, model.kv_heads, model.head_dim};
}

inline constexpr KvCopyCase kKvCopyCases[] = {
    {{"some_slots", kOracle}, {2, 2, 4}, 5},
    {{"prompt_of_60", kBenchForward, &k135M}, attention_shape(k135M), 28},
    {{"prompt_of_60", kBenchForward, &k8M}, attention_shape(k8M), 28},
};

struct KvClearCase : Case {
  AttentionShape shape;
  int64_t blocks;
};

inline constexpr KvClearCase kKvClearCases[] = {
    {{"three_blocks", kOracle}, {1, 2, 4}, 3},
    {{"decode", kBenchForward, &k135M}, attention_shape(k135M), 320},
    {{"decode", kBenchForward, &k8M}, attention_shape(k8M), 320},
};

}  // namespace orrery::kernels::cases
