// Several modules in one checkpoint, cut differently over the ranks.
#include <gmock/gmock.h>

#include <numeric>

#include "core/error.h"
#include "core/sha256.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_report.h"
#include "tests/storage/checkpoint_fixture.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::error_of;

class CheckpointModulesTest : public CheckpointTest {
 protected:
  using Numbers = std::vector<std::vector<std::vector<float>>>;  // by kind and tensor

  /// Numbers of a module's tensors, which `seed` tells.
  static Numbers numbers(const StoredModule& module, uint64_t seed) {
    Numbers all;
    Philox random(seed, RngPurpose::kTest);
    for (int64_t kind = 0; kind < module.kinds(); ++kind) {
      all.emplace_back();
      for (const StoredTensor& tensor : module.tensors) {
        std::vector<float>& values = all.back().emplace_back(static_cast<size_t>(tensor.size));
        for (float& value : values) value = random.normal();
      }
    }
    return all;
  }

  /// Where rank `rank` of `ranks` begins in a tensor.
  static int64_t cut(int64_t size, int64_t rank, int64_t ranks) { return size * rank / ranks; }

  /// A rank's part of a module: a slice of every tensor, one after the other.
  struct Owned {
    std::vector<models::HeldSlice> slices;
    std::vector<std::vector<float>> arrays;  // by kind
    ModulePart part(const StoredModule& module) const {
      const auto kind = [&](size_t i) {
        return i < arrays.size() ? std::span<const float>(arrays[i]) : std::span<const float>();
      };
      return {module, slices, kind(0), kind(1), kind(2)};
    }
  };
  static Owned owned(const StoredModule& module, const Numbers& all, int64_t rank, int64_t ranks) {
    Owned mine;
    mine.arrays.resize(all.size());
    int64_t at = 0;
    for (size_t t = 0; t < module.tensors.size(); ++t) {
      const int64_t size = module.tensors[t].size;
      const Extent slice{cut(size, rank, ranks), cut(size, rank + 1, ranks)};
      mine.slices.push_back({static_cast<int64_t>(t), slice, at});
      at += slice.size();
      for (size_t kind = 0; kind < all.size(); ++kind) {
        const auto from = all[kind][t].begin();
        mine.arrays[kind].insert(mine.arrays[kind].end(), from + slice.begin, from + slice.end);
      }
    }
    return mine;
  }

  const StoredModule policy_ = stored_module(table_);
  const StoredModule critic_{"critic", true, {{"value_head.weight", {1, 12}, 12}, {"b", {7}, 7}}};
  const StoredModule reference_{"reference", false, policy_.tensors};
  const std::vector<StoredModule> modules_ = {policy_, critic_, reference_};
  const std::vector<Numbers> numbers_ = {numbers(policy_, 1), numbers(critic_, 2),
                                         numbers(reference_, 3)};

  /// Four ranks: the policy on all, the critic on the last two, the reference on one.
  fs::path save_all() const {
    const fs::path temporary = prepare_checkpoint(checkpoints(), 5);
    std::vector<CheckpointFileEntry> entries;
    for (int64_t rank = 0; rank < 4; ++rank) {
      const Owned policy = owned(policy_, numbers_[0], rank, 4);
      const Owned critic = rank >= 2 ? owned(critic_, numbers_[1], rank - 2, 2) : Owned{};
      const Owned reference = rank == 1 ? owned(reference_, numbers_[2], 0, 1) : Owned{};
      std::vector<ModulePart> parts = {policy.part(policy_)};
      if (rank >= 2) parts.push_back(critic.part(critic_));
      if (rank == 1) parts.push_back(reference.part(reference_));
      entries.push_back(write_checkpoint_part(temporary, rank, 4, parts));
    }
    fs::path target = checkpoints() / checkpoint_name(5);
    publish_checkpoint(temporary, target, info(5), modules_, entries, folder_ / "model");
    return target;
  }
};

TEST_F(CheckpointModulesTest, EachReadsBackOnOtherCuts) {
  const Checkpoint c(save_all());
  EXPECT_EQ(std::vector<StoredModule>(c.modules().begin(), c.modules().end()), modules_);
  for (size_t m = 0; m < modules_.size(); ++m) {
    for (const int64_t ranks : {1, 2, 3, 7}) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const Owned expected = owned(modules_[m], numbers_[m], rank, ranks);
        std::vector<std::vector<float>> read = expected.arrays;
        for (auto& values : read) std::fill(values.begin(), values.end(), -1.0f);
        read.resize(3);
        c.read(modules_[m].name, expected.slices, read[0], read[1], read[2]);
        read.resize(expected.arrays.size());
        EXPECT_EQ(read, expected.arrays) << modules_[m].name << " " << rank << " of " << ranks;
      }
    }
  }
  std::vector<float> moments(12);
  const models::HeldSlice first{0, {0, 12}, 0};
  EXPECT_THROW(c.read("reference", {&first, 1}, {}, moments), Error);
}

TEST_F(CheckpointModulesTest, EachHasAHashOfItsOwn) {
  const Checkpoint again(save_all());
  Buffers b = buffers(0);
  again.read("policy", table_.slices(), b.weights, b.m, b.v);
  EXPECT_EQ(checkpoint_hash(again), checkpoint_hash(5, table_, b.weights, b.m, b.v))
      << "what else is saved changes nothing";
  std::string text = "orrery checkpoint 1\nmodule critic\nstep 5\n";
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    for (size_t t = 0; t < critic_.tensors.size(); ++t) {
      text += fmt::format("{} {}\n", kKinds[kind], t == 0 ? "value_head.weight [1, 12]" : "b [7]");
      const std::vector<float>& values = numbers_[1][kind][t];
      text.append(reinterpret_cast<const char*>(values.data()), 4 * values.size());
    }
  }
  EXPECT_EQ(checkpoint_hash(again, "critic"), sha256_hex(std::as_bytes(std::span(text))));
  EXPECT_NE(checkpoint_hash(again, "reference"), checkpoint_hash(again));
  EXPECT_THAT(error_of([&] { checkpoint_hash(again, "actor"); }),
              HasSubstr("step_000005 has no module \"actor\"; its modules are policy, critic, "
                        "reference"));
}

TEST_F(CheckpointModulesTest, ADifferenceNamesModules) {
  const Checkpoint all(save_all());
  Buffers b = buffers(0);
  all.read("policy", table_.slices(), b.weights, b.m, b.v);
  const Checkpoint policy(save(6, b));
  const CheckpointDiff more = diff_checkpoints(all, policy), less = diff_checkpoints(policy, all);
  EXPECT_THAT(more.modules_only_a, testing::ElementsAre("critic", "reference"));
  EXPECT_THAT(less.modules_only_b, testing::ElementsAre("critic", "reference"));
  EXPECT_TRUE(more.modules_only_b.empty() && less.modules_only_a.empty());
  EXPECT_FALSE(more.equal_tensors() || less.equal_tensors());
  for (const TensorDiff& t : more.tensors) EXPECT_TRUE(t.equal()) << t.name;
  const CheckpointDiff same = diff_checkpoints(all, all);
  EXPECT_TRUE(same.equal_tensors());
  EXPECT_EQ(same.tensors.size(), 2 * policy_.tensors.size() + critic_.tensors.size());
  EXPECT_EQ(same.tensors[policy_.tensors.size()].name, "critic/value_head.weight");
}

TEST_F(CheckpointModulesTest, APolicyOfAnotherModelIsNotPublished) {
  const fs::path temporary = prepare_checkpoint(checkpoints(), 5);
  const Owned all = owned(critic_, numbers_[1], 0, 1);
  const ModulePart part = all.part(critic_);
  const auto entry = write_checkpoint_part(temporary, 0, 1, {&part, 1});
  EXPECT_THAT(error_of([&] {
                publish_checkpoint(temporary, checkpoints() / "step_000005", info(5), {&critic_, 1},
                                   {entry}, {});
              }),
              HasSubstr("has no module \"policy\"; its modules are critic"));
}

}  // namespace
}  // namespace orrery::storage
