#include "learners/batch.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace orrery::learners {

int64_t Leaf::loss_tokens() const {
  return std::count(loss_mask.begin(), loss_mask.end(), uint8_t{1});
}

int64_t Tree::rows() const {
  auto rows = static_cast<int64_t>(prompt.size());
  for (const Leaf& leaf : leaves) rows += leaf_rows(static_cast<int64_t>(leaf.tokens.size()));
  return rows;
}

std::vector<Tree> make_trees(std::span<const int32_t> prompt, std::vector<Leaf> leaves,
                             int64_t max_rows) {
  ORRERY_CHECK(!prompt.empty(), "a sample of prompt {} has an empty prompt",
               leaves.empty() ? 0 : leaves.front().prompt_index);
  std::vector<Tree> trees;
  int64_t rows = 0;
  for (Leaf& leaf : leaves) {
    const int64_t cost = Tree::leaf_rows(static_cast<int64_t>(leaf.tokens.size()));
    if (trees.empty() || rows + cost > max_rows) {
      trees.push_back({prompt, {}});
      rows = static_cast<int64_t>(prompt.size());
    }
    rows += cost;
    trees.back().leaves.push_back(std::move(leaf));
  }
  return trees;
}

std::vector<std::vector<size_t>> assign_shards(std::span<const int64_t> rows, int64_t shards) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rows[a] > rows[b]; });
  std::vector<std::vector<size_t>> result(static_cast<size_t>(shards));
  std::vector<int64_t> load(static_cast<size_t>(shards), 0);
  for (const size_t tree : order) {
    const auto shard =
        static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    load[shard] += rows[tree];
    result[shard].push_back(tree);
  }
  for (auto& trees : result) std::sort(trees.begin(), trees.end());
  return result;
}

void append_tree(MicroBatch& batch, Tree& tree) {
  const auto prompt_begin = static_cast<int64_t>(batch.tokens.size());
  const auto prompt_rows = static_cast<int64_t>(tree.prompt.size());
  const auto prompt_segment = static_cast<int32_t>(batch.segments.size());
  batch.tokens.insert(batch.tokens.end(), tree.prompt.begin(), tree.prompt.end());
  for (int64_t i = 0; i < prompt_rows; ++i) batch.positions.push_back(static_cast<int32_t>(i));
  batch.segments.push_back({prompt_begin, prompt_rows, 0, -1});
  for (Leaf& leaf : tree.leaves) {
    const auto begin = static_cast<int64_t>(batch.tokens.size());
    const int64_t rows = Tree::leaf_rows(static_cast<int64_t>(leaf.tokens.size()));
    batch.tokens.insert(batch.tokens.end(), leaf.tokens.begin(), leaf.tokens.begin() + rows);
    for (int64_t i = 0; i < rows; ++i)
      batch.positions.push_back(static_cast<int32_t>(prompt_rows + i));
    if (rows > 0) batch.segments.push_back({begin, rows, prompt_rows, prompt_segment});
    for (size_t i = 0; i < leaf.tokens.size(); ++i) {
      if (leaf.loss_mask[i] == 0) continue;
      const int64_t row =
          i == 0 ? prompt_begin + prompt_rows - 1 : begin + static_cast<int64_t>(i) - 1;
      batch.output_rows.push_back(static_cast<int32_t>(row));
      batch.targets.push_back(leaf.tokens[i]);
      batch.sources.push_back({&leaf, static_cast<int32_t>(i)});
    }
  }
}

std::vector<MicroBatch> pack(std::span<Tree* const> trees, int64_t max_tokens) {
  std::vector<MicroBatch> batches;
  for (Tree* tree : trees) {
    if (batches.empty() ||
        static_cast<int64_t>(batches.back().tokens.size()) + tree->rows() > max_tokens) {
      batches.emplace_back();
    }
    append_tree(batches.back(), *tree);
  }
  return batches;
}

}  // namespace orrery::learners
