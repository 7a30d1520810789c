// embedding_forward and embedding_backward.
#pragma once

#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct EmbeddingCase : Case {
  int64_t vocab, dim, tokens;
  List<int32_t, 5> some = {};  ///< the ids, where there are few
  std::vector<int32_t> ids() const {
    if (some.size() > 0) return {some.begin(), some.end()};
    return scattered_ids(tokens, vocab);
  }
};

inline constexpr EmbeddingCase kEmbeddingCases[] = {
    {{"one_element", kTest}, 1, 1, 1, {0}},
    {{"repeated_ids", kTest}, 5, 17, 5, {4, 4, 0, 4, 1}},
    {{"more_tokens_than_ids", kTest}, 11, 64, 97},
    {{"rows_for_threads", kTest}, 50, 200, 700},
    {{"decode", kBenchForward, &k135M}, k135M.vocab, k135M.dim, kDecodeRows},
    {{"group", kBench, &k135M}, k135M.vocab, k135M.dim, kGroupTokens},
    {{"decode", kBenchForward, &k8M}, k8M.vocab, k8M.dim, kDecodeRows},
    {{"group", kBench, &k8M}, k8M.vocab, k8M.dim, kGroupTokens},
};

}  // namespace orrery::kernels::cases
