// Input: damage to files that Orrery wrote: a step's rollouts and a checkpoint. Byte 0
// chooses the file, then each three bytes are a place and what is xored there; one or
// two bytes over cut the file there. HDF5 does not promise to survive hostile bytes, so
// a file that differs by one bit must be refused before HDF5 opens it; an undamaged one
// must give back what was written.
#include <cstring>

#include "core/file.h"
#include "rollout/rollout_file.h"
#include "storage/checkpoint.h"
#include "tests/fuzz/fuzzing.h"
#include "tests/support/tiny_config.h"

namespace {

using namespace orrery;

constexpr const char* kModelConfig =
    R"({"model_type": "llama", "hidden_size": 4, "intermediate_size": 4,
  "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 5, "max_position_embeddings": 8})";

/// The files as they were written, and which of them are covered by a digest to the
/// last bit.
struct Written {
  fuzzing::Scratch scratch;
  std::filesystem::path rollouts, checkpoint;
  struct File {
    std::filesystem::path path;
    std::string contents;
  };
  std::vector<File> files;

  Written() {
    rollout::Trajectory sample;
    sample.prompt_tokens = {1, 2};
    sample.tokens = {3, 4, 0};
    sample.logprobs = {-1, -2, -0.5f};
    sample.entropies = {1, 1, 1};
    sample.loss_mask = {1, 1, 1};
    sample.weight_versions = {0, 0, 0};
    sample.reward_extra["correct"] = 1;
    sample.response_text = "7";
    sample.truth = "8";
    sample.data_file = "rows.jsonl";
    sample.data_row = 3;
    rollouts = scratch.path() / "step_000001.h5";
    const rollout::Group group{0, 0, {sample}};
    const std::string prompt = "3+4=";
    rollout::write_rollout_file(rollouts, 1, std::span(&group, 1), 1,
                                {rollout::kRlStage, std::span(&prompt, 1)});

    const models::ModelConfig config = models::parse_model_config(kModelConfig, "model");
    const models::ParameterTable table(config);
    const std::vector<float> values(static_cast<size_t>(table.flat_size()), 0.5f);
    const auto temporary = storage::prepare_checkpoint(scratch.path(), 1);
    const storage::ModulePart all{storage::stored_module(table), table.slices(), values, values,
                                  values};
    const storage::CheckpointFileEntry entry =
        storage::write_checkpoint_part(temporary, 0, 1, {&all, 1});
    const storage::CheckpointInfo info = testing_support::checkpoint_info(1, config);
    checkpoint = scratch.path() / storage::checkpoint_name(1);
    storage::publish_checkpoint(temporary, checkpoint, info, {&all.module, 1}, {entry}, {});

    for (const std::filesystem::path& path :
         {rollouts, checkpoint / storage::rank_file_name(0, 1), checkpoint / storage::kManifestFile,
          checkpoint / storage::kManifestHashFile,
          std::filesystem::path(rollouts.string() + ".sha256")}) {
      files.push_back({path, read_file(path)});
    }
  }
};

void read_all(const Written& written, bool rollouts) {
  if (rollouts) {
    const rollout::RolloutFile file = rollout::read_rollout_file(written.rollouts);
    const bool same = file.groups.size() == 1 && file.groups[0].samples.size() == 1 &&
                      file.groups[0].samples[0].tokens == std::vector<int32_t>({3, 4, 0}) &&
                      file.groups[0].samples[0].truth == "8" && file.prompt_texts.size() == 1;
    if (!same) fuzzing::broken("a rollout file that is read is what was written");
    return;
  }
  const storage::Checkpoint checkpoint(written.checkpoint);
  const models::ParameterTable& table = checkpoint.table();
  std::vector<float> weights(static_cast<size_t>(table.flat_size())), m(weights), v(weights);
  checkpoint.read(models::kPolicy.name, table.slices(), weights, m, v);
  for (std::vector<float>* values : {&weights, &m, &v}) {
    for (const models::Parameter& p : table.parameters()) {
      for (const float value : table.values(Span<float>(*values), p)) {
        if (value != 0.5f) fuzzing::broken("a checkpoint that is read is what was written");
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Written written;
  if (size == 0) return 0;
  const size_t chosen = data[0] % written.files.size();
  const Written::File& file = written.files[chosen];
  const bool rollouts = chosen == 0 || chosen == 4;
  std::string contents = file.contents;
  size_t at = 1;
  for (; at + 3 <= size; at += 3) {
    uint16_t place = 0;
    std::memcpy(&place, data + at, sizeof(place));
    char& byte = contents[place * contents.size() >> 16];
    byte = static_cast<char>(byte ^ data[at + 2]);
  }
  if (at < size) contents.resize(data[at] * contents.size() >> 8);

  write_file_atomic(file.path, contents);
  const bool read = fuzzing::accepted([&] { read_all(written, rollouts); });
  const bool damaged = contents != file.contents;
  // The digest's own line may differ behind the digest.
  if (read && damaged && chosen != 4)
    fuzzing::broken("a damaged file is refused: " + file.path.string());
  if (!read && !damaged) fuzzing::broken("an undamaged file is read: " + file.path.string());
  if (damaged) write_file_atomic(file.path, file.contents);
  return 0;
}
