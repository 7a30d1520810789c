#include "learners/batch.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace orrery::learners {

int64_t Leaf::loss_tokens() const {
  return std::count(loss_mask.begin(), loss_mask.end(), uint8_t{1});
}

int64_t Tree::rows() const {
  int64_t rows = std::ssize(prompt);
  for (const Leaf& leaf : leaves) rows += leaf_rows(std::ssize(leaf.tokens));
  return rows;
}

std::vector<Tree> make_trees(std::span<const int32_t> prompt, std::vector<Leaf> leaves,
                             int64_t max_rows) {
  ORRERY_CHECK(!prompt.empty(), "a sample of prompt {} has an empty prompt",
               leaves.empty() ? 0 : leaves.front().prompt_index);
  std::vector<Tree> trees;
  int64_t rows = 0;
  for (Leaf& leaf : leaves) {
    const int64_t cost = Tree::leaf_rows(std::ssize(leaf.tokens));
    if (trees.empty() || rows + cost > max_rows) {
      trees.push_back({prompt, {}});
      rows = std::ssize(prompt);
    }
    rows += cost;
    trees.back().leaves.push_back(std::move(leaf));
  }
  return trees;
}

std::vector<std::vector<int64_t>> assign_shards(Span<const int64_t> rows, int64_t shards) {
  Array<int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return rows[a] > rows[b]; });
  std::vector<std::vector<int64_t>> result(shards);
  Array<int64_t> load(shards, 0);
  for (const int64_t tree : order) {
    const int64_t shard = std::min_element(load.begin(), load.end()) - load.begin();
    load[shard] += rows[tree];
    result[shard].push_back(tree);
  }
  for (auto& trees : result) std::sort(trees.begin(), trees.end());
  return result;
}

namespace {

void append_positions(MicroBatch& batch, int64_t first, int64_t count) {
  for (int64_t i = first; i < first + count; ++i)
    batch.positions.push_back(static_cast<int32_t>(i));
}

}  // namespace

void append_tree(MicroBatch& batch, Tree& tree) {
  const int64_t prompt_begin = std::ssize(batch.tokens), prompt_rows = std::ssize(tree.prompt);
  const auto prompt_segment = static_cast<int32_t>(batch.segments.size());
  batch.tokens.insert(batch.tokens.end(), tree.prompt.begin(), tree.prompt.end());
  append_positions(batch, 0, prompt_rows);
  batch.segments.push_back({prompt_begin, prompt_rows, 0, -1});
  for (Leaf& leaf : tree.leaves) {
    const int64_t begin = std::ssize(batch.tokens);
    const int64_t rows = Tree::leaf_rows(std::ssize(leaf.tokens));
    batch.tokens.insert(batch.tokens.end(), leaf.tokens.begin(), leaf.tokens.begin() + rows);
    append_positions(batch, prompt_rows, rows);
    if (rows > 0) batch.segments.push_back({begin, rows, prompt_rows, prompt_segment});
    for (int32_t i = 0; i < std::ssize(leaf.tokens); ++i) {
      if (leaf.loss_mask[i] == 0) continue;
      // The row before a token predicts it: for the first one, the prompt's last.
      const int64_t row = i == 0 ? prompt_begin + prompt_rows - 1 : begin + i - 1;
      batch.output_rows.push_back(static_cast<int32_t>(row));
      batch.targets.push_back(leaf.tokens[i]);
      batch.loss_rows.push_back({&leaf, i});
    }
  }
}

int64_t min_run_rows(DType compute_dtype) { return compute_dtype == DType::kBF16 ? 256 : 1; }

std::vector<MicroBatch> pack(std::span<Tree* const> trees, int64_t max_tokens,
                             int64_t min_run_rows) {
  std::vector<MicroBatch> batches;
  for (size_t begin = 0, end = 0; begin < trees.size(); begin = end) {
    int64_t rows = 0;
    while (end < trees.size() && rows < min_run_rows) rows += trees[end++]->rows();
    if (batches.empty() || std::ssize(batches.back().tokens) + rows > max_tokens)
      batches.emplace_back();
    MicroBatch& batch = batches.back();
    for (Tree* tree : trees.subspan(begin, end - begin)) append_tree(batch, *tree);
    batch.run_ends.push_back(std::ssize(batch.tokens));
    batch.loss_run_ends.push_back(std::ssize(batch.loss_rows));
  }
  return batches;
}

}  // namespace orrery::learners
