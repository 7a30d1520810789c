// Manifests whose digests are right and whose claims are not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "storage/checkpoint.h"
#include "tests/storage/checkpoint_fixture.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_checkpoint.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing_support::checkpoint_info;
using testing_support::open_error;
using testing_support::rewrite_manifest;
using testing_support::save_tiny_checkpoint;
using testing_support::tiny_checkpoint_config;

class CheckpointManifestTest : public testing::Test {
 protected:
  CheckpointManifestTest() : scratch_("orrery_checkpoint_manifest_") {}

  fs::path save(int64_t step, const std::vector<int64_t>& cuts = {}) const {
    return save_tiny_checkpoint(folder_, checkpoint_info(step, tiny_checkpoint_config()), cuts);
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
};

TEST_F(CheckpointManifestTest, TheStartsLargestWeightIsKeptAndMayBeAbsent) {
  CheckpointInfo info = checkpoint_info(4, tiny_checkpoint_config());
  const fs::path plain = save_tiny_checkpoint(folder_, info);
  EXPECT_THAT(read_file(plain / kManifestFile), Not(HasSubstr("start_largest")));
  EXPECT_EQ(Checkpoint(plain).info().state->start_largest, std::nullopt) << "as older checkpoints";
  info.state->start_largest = 1.1F;
  EXPECT_EQ(Checkpoint(save_tiny_checkpoint(folder_, info)).info().state->start_largest,
            double{1.1F});
}

TEST_F(CheckpointManifestTest, SkippedStepsAreKeptAndAbsentIsNone) {
  CheckpointInfo info = checkpoint_info(4, tiny_checkpoint_config());
  const fs::path plain = save_tiny_checkpoint(folder_, info);
  EXPECT_THAT(read_file(plain / kManifestFile), Not(HasSubstr("skipped_steps")));
  EXPECT_EQ(Checkpoint(plain).info().state->skipped_steps, 0) << "as older checkpoints";
  info.state->skipped_steps = 3;
  EXPECT_EQ(Checkpoint(save_tiny_checkpoint(folder_, info)).info().state->skipped_steps, 3);
  EXPECT_EQ(step_text(*info.state), "step 4 (grpo 4)");
  info.state->sft_step = 600;
  EXPECT_EQ(step_text(*info.state), "step 604 (grpo 4)");
  info.state->rl_step = 0;
  EXPECT_EQ(step_text(*info.state), "step 600 (sft 600)");
}

// Without what it needs to go on, a run's checkpoint must not pass for an imported
// model of step 0.
TEST_F(CheckpointManifestTest, AValidationThatIsDueIsKeptAndAbsentIsNone) {
  CheckpointInfo info = checkpoint_info(4, tiny_checkpoint_config());
  const fs::path plain = save_tiny_checkpoint(folder_, info);
  EXPECT_THAT(read_file(plain / kManifestFile), Not(HasSubstr("validation_due")));
  EXPECT_FALSE(Checkpoint(plain).info().state->validation_due);
  info.state->validation_due = true;
  EXPECT_TRUE(Checkpoint(save_tiny_checkpoint(folder_, info)).info().state->validation_due);
}

TEST_F(CheckpointManifestTest, StateIsWhatARunWritesUnlessImported) {
  CheckpointInfo imported = checkpoint_info(0, tiny_checkpoint_config());
  imported.stage = kImportStage;
  imported.state.reset();
  EXPECT_FALSE(Checkpoint(save_tiny_checkpoint(folder_, imported)).info().state);

  const fs::path path = save(4);
  nlohmann::json good = nlohmann::json::parse(read_file(path / kManifestFile));
  const auto with = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json manifest = good;
    change(manifest);
    rewrite_manifest(path, manifest.dump());
    const std::string error = open_error(path);
    EXPECT_EQ(list_checkpoints(folder_).back().problem, error);
    EXPECT_THAT(error, Not(HasSubstr("json.exception")));
    return error;
  };
  using Json = nlohmann::json;
  EXPECT_EQ(with([](Json&) {}), "");
  const std::string needed = "what a training run writes is needed where stage is \"grpo\"";
  EXPECT_THAT(with([](Json& m) { m.erase("state"); }), HasSubstr("state is absent; " + needed));
  EXPECT_THAT(with([](Json& m) { m["state"] = nullptr; }), HasSubstr("state is null; " + needed));
  EXPECT_THAT(with([](Json& m) { m["state"] = Json::object(); }),
              HasSubstr("manifest.json: state: key \"format\" is missing"));
  EXPECT_THAT(with([](Json& m) { m["state"] = "x"; }), HasSubstr("state: expected a JSON object"));
  EXPECT_THAT(with([](Json& m) { m["state"]["format"] = 9; }), HasSubstr("state is of format 9"));
  EXPECT_THAT(with([](Json& m) { m["state"].erase("reward"); }), HasSubstr("reward is absent"));
  EXPECT_THAT(with([](Json& m) { m["state"]["val_before"] = "x"; }),
              HasSubstr("val_before is \"x\""));
  EXPECT_THAT(with([](Json& m) { m["state"]["sft_step"] = "x"; }), HasSubstr("sft_step is \"x\""));
  EXPECT_THAT(with([](Json& m) { m["state"]["sft_step"] = INT64_MAX; }), HasSubstr("sft_step"));
  EXPECT_THAT(with([](Json& m) { m["state"]["sft_step"] = 1; }),
              HasSubstr("state is of step 5 (1 of SFT, 4 of RL), but step is 4"));
  EXPECT_THAT(with([](Json& m) { m["stage"] = "foo"; }),
              HasSubstr("stage is \"foo\"; \"sft\", \"grpo\" or \"import\" is needed"));
  EXPECT_THAT(with([](Json& m) { m["stage"] = "import"; }),
              HasSubstr("an imported model has none"));
  EXPECT_THAT(with([](Json& m) {
                m["stage"] = "import";
                m["state"] = Json::object();
              }),
              HasSubstr("an imported model is of step 0"));
}

TEST_F(CheckpointManifestTest, InputsAreOptionalAndPlain) {
  EXPECT_FALSE(Checkpoint(save(3)).info().inputs);
  CheckpointInfo info = checkpoint_info(4, tiny_checkpoint_config());
  info.inputs = {{"data.train_files", "/a b/\"c\".jsonl", "sha256:12"},
                 {"model.path", "weights", "sums:34"}};
  const fs::path path = save_tiny_checkpoint(folder_, info);
  EXPECT_EQ(Checkpoint(path).info().inputs, info.inputs);
  info.inputs.emplace();
  info.step = info.state->rl_step = 5;
  EXPECT_EQ(Checkpoint(save_tiny_checkpoint(folder_, info)).info().inputs, info.inputs);

  const nlohmann::json good = nlohmann::json::parse(read_file(path / kManifestFile));
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change,
                           const std::string& why) {
    nlohmann::json manifest = good;
    change(manifest["inputs"]);
    rewrite_manifest(path, manifest.dump());
    EXPECT_THAT(open_error(path), testing::AllOf(HasSubstr(why), Not(HasSubstr("\n"))));
  };
  using Json = nlohmann::json;
  refused([](Json& inputs) { inputs = 3; }, "inputs is 3; a list is needed");
  refused([](Json& inputs) { inputs[0] = "x"; }, "inputs: expected a JSON object");
  refused([](Json& inputs) { inputs[0].erase("digest"); }, "\"digest\" is missing");
  refused([](Json& inputs) { inputs[0]["name"] = ""; }, "without control characters");
  refused([](Json& inputs) { inputs[1]["key"] = "a\nb"; }, "without control characters");
}

TEST_F(CheckpointManifestTest, NumericsAndDeviceAreOptionalAndPlain) {
  EXPECT_FALSE(Checkpoint(save(3)).info().numerics);
  EXPECT_FALSE(Checkpoint(save(4)).info().device);
  CheckpointInfo info = checkpoint_info(5, tiny_checkpoint_config());
  info.numerics = "bf16-storage/1";
  info.device = "debug";
  const fs::path path = save_tiny_checkpoint(folder_, info);
  EXPECT_EQ(Checkpoint(path).info().numerics, info.numerics);
  EXPECT_EQ(Checkpoint(path).info().device, info.device);
  nlohmann::json manifest = nlohmann::json::parse(read_file(path / kManifestFile));
  manifest["numerics"] = "dot16-rz25/1";  // a later program's
  rewrite_manifest(path, manifest.dump());
  EXPECT_EQ(Checkpoint(path).info().numerics, "dot16-rz25/1");
  manifest["device"] = "a\nb";
  rewrite_manifest(path, manifest.dump());
  EXPECT_THAT(open_error(path), HasSubstr("without control characters"));
}

// Every digest is right, and yet the files are not what the manifest says.
TEST_F(CheckpointManifestTest, FilesThatHoldOtherSlicesAreFoundBeforeTheyAreUsed) {
  save(3);
  const fs::path path = save(4, {200, 300});  // both in the embedding, of 37 x 12
  const auto good = nlohmann::json::parse(read_file(path / kManifestFile));
  const auto expect_refused = [&](const nlohmann::json& manifest, const std::string& why) {
    rewrite_manifest(path, manifest.dump());
    EXPECT_THAT(open_error(path), HasSubstr(why));
    std::string reason;
    const auto found = latest_good_checkpoint(
        folder_, [&](const fs::path&, const std::string& r) { reason += r; });
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->info().step, 3);
    EXPECT_THAT(reason, HasSubstr(why));
  };
  nlohmann::json moved = good;
  const auto embedding = [](nlohmann::json& manifest, int rank) -> nlohmann::json& {
    return manifest["files"][static_cast<size_t>(rank)]["slices"]["policy"]
                   ["model.embed_tokens.weight"];
  };
  const std::string other_slices =
      "rank_0000_of_0003.h5: /policy/weights/model.embed_tokens.weight: its slices are not those in "
      "the manifest";
  embedding(moved, 0)[0][1] = 190;
  embedding(moved, 1)[0][0] = 190;
  expect_refused(moved, other_slices);

  const fs::path a = path / rank_file_name(0, 3), b = path / rank_file_name(1, 3);
  const std::string bytes_a = read_file(a), bytes_b = read_file(b);
  write_file_atomic(a, bytes_b);
  write_file_atomic(b, bytes_a);
  nlohmann::json swapped = good;
  for (const char* key : {"sha256", "bytes"})
    swap(swapped["files"][0][key], swapped["files"][1][key]);
  expect_refused(swapped, other_slices);

  write_file_atomic(a, "no HDF5");
  nlohmann::json other = good;
  other["files"][0]["bytes"] = 7;
  other["files"][0]["sha256"] = describe_file(path, rank_file_name(0, 3)).sha256;
  write_file_atomic(b, bytes_b);
  expect_refused(other, "HDF5 cannot open");
}

}  // namespace
}  // namespace orrery::storage
