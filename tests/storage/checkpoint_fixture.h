// A scratch folder with checkpoints of a tiny model, whose numbers are functions of a
// seed.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/rng.h"
#include "storage/checkpoint.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_checkpoint.h"

namespace orrery::storage {

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest()
      : scratch_("orrery_checkpoint_"),
        config_(testing_support::tiny_checkpoint_config(2)),
        table_(config_) {
    std::filesystem::create_directories(folder_ / "model");
    write_file_atomic(folder_ / "model" / "tokenizer.json", R"({"model": {}})");
    write_file_atomic(folder_ / "model" / "generation_config.json", "{}");
  }

  std::filesystem::path checkpoints() const { return folder_ / "run" / "checkpoints"; }

  /// Weights and moments that are a function of the seed.
  struct Buffers {
    std::vector<float> weights, m, v;
  };
  Buffers buffers(uint64_t seed) const {
    const auto n = static_cast<size_t>(table_.flat_size());
    Buffers b{std::vector<float>(n), std::vector<float>(n), std::vector<float>(n)};
    uint64_t stream = 0;
    for (auto* values : {&b.weights, &b.m, &b.v}) {
      Philox random(seed, RngPurpose::kTest, stream++);
      for (const models::Parameter& p : table_.parameters()) {
        for (float& value : table_.values(Span<float>(*values), p)) value = random.normal();
      }
    }
    return b;
  }

  CheckpointInfo info(int64_t step) const {
    CheckpointInfo i = testing_support::checkpoint_info(step, config_);
    i.run_config_yaml = "seed: 1\nname: \"\xC3\xA9\"\n";
    i.state->adam_t = 3;
    i.state->val_before = 0.1;
    i.reward = 0.25;
    return i;
  }

  /// Saves cut at `cuts` (0 and flat_size added): a rank for each part, or `ranks`
  /// taking turns.
  std::filesystem::path save(int64_t step, const Buffers& b, std::vector<int64_t> cuts = {},
                             const CheckpointInfo* with = nullptr, int64_t ranks = 0) const {
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(table_.flat_size());
    if (ranks == 0) ranks = static_cast<int64_t>(cuts.size()) - 1;
    const std::filesystem::path temporary = prepare_checkpoint(checkpoints(), step);
    std::vector<CheckpointFileEntry> entries;
    for (int64_t r = 0; r < ranks; ++r) {
      std::vector<Extent> extents;
      Buffers part;
      for (size_t i = static_cast<size_t>(r); i + 1 < cuts.size();
           i += static_cast<size_t>(ranks)) {
        if (cuts[i] == cuts[i + 1]) continue;
        extents.push_back({cuts[i], cuts[i + 1]});
        const auto append = [&](std::vector<float>& to, const std::vector<float>& all) {
          to.insert(to.end(), all.begin() + cuts[i], all.begin() + cuts[i + 1]);
        };
        append(part.weights, b.weights);
        append(part.m, b.m);
        append(part.v, b.v);
      }
      const ModulePart rank_part =
          testing_support::module_part(table_, extents, part.weights, part.m, part.v);
      entries.push_back(write_checkpoint_part(temporary, r, ranks, {&rank_part, 1}));
    }
    const std::filesystem::path target = checkpoints() / checkpoint_name(step);
    const StoredModule policy = stored_module(table_);
    publish_checkpoint(temporary, target, with != nullptr ? *with : info(step), {&policy, 1},
                       entries, folder_ / "model");
    return target;
  }

  Buffers load(const std::filesystem::path& path) const {
    const Checkpoint c(path);
    Buffers b = buffers(0);
    c.read(models::kPolicy.name, table_.slices(), b.weights, b.m, b.v);
    return b;
  }

  static void overwrite(const std::filesystem::path& path,
                        const std::string& bytes) {  // without the fsyncs
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }

  const testing_support::ScratchPath scratch_;
  const std::filesystem::path& folder_ = scratch_.path();
  models::ModelConfig config_;
  models::ParameterTable table_;
};

}  // namespace orrery::storage
