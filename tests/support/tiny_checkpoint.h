// Checkpoints of tiny_checkpoint_config, and manifests that lie.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/sha256.h"
#include "storage/checkpoint.h"
#include "tests/support/tiny_config.h"

namespace orrery::testing_support {

/// A rank's part of a module of which it has these stretches of the flat buffers.
inline storage::ModulePart module_part(const models::ParameterTable& table,
                                       std::span<const Extent> stretches,
                                       std::span<const float> weights,
                                       std::span<const float> adam_m,
                                       std::span<const float> adam_v) {
  return {storage::stored_module(table), table.slices(stretches), weights, adam_m, adam_v};
}

/// Saves into `folder`, every number 0.5, a rank for each part that `cuts` make of the
/// flat buffers.
inline std::filesystem::path save_tiny_checkpoint(const std::filesystem::path& folder,
                                                  const storage::CheckpointInfo& info,
                                                  std::vector<int64_t> cuts = {}) {
  const models::ParameterTable table(tiny_checkpoint_config());
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(table.flat_size());
  const int64_t ranks = static_cast<int64_t>(cuts.size()) - 1;
  const std::filesystem::path temporary = storage::prepare_checkpoint(folder, info.step),
                              target = folder / storage::checkpoint_name(info.step);
  std::vector<storage::CheckpointFileEntry> entries;
  for (int64_t r = 0; r < ranks; ++r) {
    const Extent extent{cuts[static_cast<size_t>(r)], cuts[static_cast<size_t>(r) + 1]};
    const std::vector<float> values(static_cast<size_t>(extent.size()), 0.5f);
    const storage::ModulePart part = module_part(table, {&extent, 1}, values, values, values);
    entries.push_back(storage::write_checkpoint_part(temporary, r, ranks, {&part, 1}));
  }
  const storage::StoredModule policy = storage::stored_module(table);
  storage::publish_checkpoint(temporary, target, info, {&policy, 1}, entries, {});
  return target;
}

/// Why it does not open; empty when it does.
inline std::string open_error(const std::filesystem::path& checkpoint) {
  try {
    const storage::Checkpoint opened(checkpoint);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// With a digest that fits, as an attacker would write.
inline void rewrite_manifest(const std::filesystem::path& checkpoint, const std::string& text) {
  write_file_atomic(checkpoint / storage::kManifestFile, text);
  write_file_atomic(
      checkpoint / storage::kManifestHashFile,
      sha256_hex(std::as_bytes(std::span(text))) + "  " + storage::kManifestFile + "\n");
}

}  // namespace orrery::testing_support
