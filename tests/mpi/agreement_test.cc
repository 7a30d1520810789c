#include "experiments/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/config.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "experiments/inputs.h"
#include "experiments/on_all_ranks.h"
#include "tests/mpi/world.h"

namespace orrery {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::world;

/// What agree() throws on this rank; empty when nothing.
template <class Work>
std::string refusal(Work&& work) {
  try {
    work();
  } catch (const experiments::AgreedError& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  }
  return "";
}

TEST(Agreement, EveryRankHearsTheSameOfTheOneThatDiffers) {
  const int last = world().size() - 1;
  const auto try_with = [&](const std::string& mine) {
    return refusal([&] { experiments::agree(world(), {{"same", "1", ""}, {"key", mine, ""}}); });
  };
  EXPECT_EQ(try_with("x"), "");
  const std::string text = try_with(world().rank() == last ? "\xff strange" : "usual");
  for (const std::string& other : world().all_gather_bytes(text)) EXPECT_EQ(other, text);
  if (world().size() > 1) {
    EXPECT_THAT(text, AllOf(HasSubstr("rank " + std::to_string(last) + " on host "),
                            HasSubstr("has key "), HasSubstr("(not usual)")));
  } else {
    EXPECT_EQ(text, "");
  }
  EXPECT_EQ(try_with("y"), "") << "the ranks still talk to each other";
}

TEST(Agreement, ConfigsMayDifferInThreadsAndPathsOnly) {
  proto::Config config;
  config::fill_defaults(config);
  config.set_run_dir("runs/a");
  const bool last = world().rank() > 0 && world().rank() == world().size() - 1;
  config.mutable_cluster()->set_threads(last ? 2 : 1);
  config.mutable_model()->set_path(last ? "/here" : "/there");
  config.mutable_data()->add_train_files(last ? "/here" : "/there");
  EXPECT_EQ(refusal([&] { experiments::agree_on_config(world(), "train", config); }), "");
  if (last) config.mutable_rollout()->set_n(3);
  const std::string text = refusal([&] { experiments::agree_on_config(world(), "train", config); });
  EXPECT_THAT(text, HasSubstr(world().size() == 1 ? "" : "has rollout.n 3 (not 8);"));
}

TEST(Agreement, InputsAreComparedByWhatTheyHold) {
  const bool last = world().rank() > 0 && world().rank() == world().size() - 1;
  std::vector<storage::InputDigest> inputs = {
      {"data.train_files", last ? "/here" : "/there", "sha256:1"}};
  EXPECT_EQ(refusal([&] { experiments::agree_on_inputs(world(), inputs); }), "");
  if (last) inputs[0].digest = "sha256:2";
  const std::string text = refusal([&] { experiments::agree_on_inputs(world(), inputs); });
  if (world().size() > 1) {
    EXPECT_THAT(
        text, HasSubstr("has data.train_files[0] /here with sha256:2 (not /there with sha256:1)"));
  }
}

}  // namespace
}  // namespace orrery
