// The fields of manifest.json that do not depend on the format's version, as read from
// a manifest that may say anything. Errors name file and field.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "core/json_read.h"
#include "storage/manifest.h"

namespace orrery::storage {

/// A manifest whose own digest is right.
struct ManifestText {
  std::string path, text;
  nlohmann::json json;
  int64_t version = 0;  ///< format_version
};

/// Reads the manifest after checking its digest, and of its fields `format` and
/// `format_version`.
ManifestText read_manifest_text(const std::filesystem::path& folder);

/// The line of manifest.sha256.
std::string manifest_hash_line(const std::string& manifest);

/// "sft" or "grpo".
bool is_training_stage(const std::string& stage);

const nlohmann::json& list_field(const JsonObject& object, const std::string& key);

/// What a run needs to find again (CheckpointInfo), with the text of model_config.
CheckpointInfo read_info(const JsonObject& object, const std::string& manifest_text);

/// Name, bytes and sha256 of an entry, whose name must be `expected`: a manifest must
/// not lead outside its folder.
CheckpointFileEntry read_file_entry(const JsonObject& entry, const std::string& expected);

/// The list `files`: read(entry, name) for each rank's file and its only possible name.
template <class Read>
void for_each_rank_file(const JsonObject& object, Read&& read) {
  constexpr int64_t kMaxRanks = 1 << 20;
  const nlohmann::json& files = list_field(object, "files");
  const int64_t ranks = std::ssize(files);
  if (ranks < 1 || ranks > kMaxRanks)
    object.reject("files", "the slices of at least one rank are needed");
  int64_t rank = 0;
  for (const nlohmann::json& file : files)
    read(JsonObject(file, object.where() + ": files"), rank_file_name(rank++, ranks));
}

std::vector<CheckpointFileEntry> read_tokenizer_entries(const JsonObject& object);

/// Error unless the file is there and has the entry's size.
void check_file_size(const std::filesystem::path& folder, const CheckpointFileEntry& entry);

}  // namespace orrery::storage
