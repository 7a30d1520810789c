// The folders of checkpoints: their names, and how they come and go.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <utility>

#include "core/error.h"
#include "core/error_report.h"
#include "core/fault.h"
#include "core/file.h"
#include "storage/checkpoint.h"
#include "storage/hf_folder.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr std::string_view kChatTemplateFile = "chat_template.jinja";

/// The step of a folder named step_N, or nothing (temporary folders and others).
std::optional<int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char *begin = name.data() + kPrefix.size(), *end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stop != end || step < 0) return std::nullopt;
  return step;
}

std::vector<std::pair<int64_t, fs::path>> step_folders(const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> result;
  if (!fs::is_directory(folder)) return result;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const auto step = step_of(entry.path());
    if (step && entry.is_directory()) result.emplace_back(*step, entry.path());
  }
  std::sort(result.begin(), result.end());
  return result;
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) fail("cannot remove {}: {}", folder.string(), error.message());
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail("cannot rename {} to {}: {}", from.string(), to.string(), error.message());
}

fs::path with_mark(fs::path folder, std::string_view what) {
  folder += fmt::format("{}{}", kTemporaryMark, what);
  return folder;
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

/// Renames over an existing checkpoint. Where the file system can exchange folders,
/// there is no moment at which neither is there.
void replace_folder(const fs::path& temporary, const fs::path& target) {
  if (!fs::exists(target)) {
    rename_folder(temporary, target);
    return;
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    sync_path(parent_of(target));
    remove_folder(temporary);
    return;
  }
  const fs::path old = with_mark(target, "replaced");
  remove_folder(old);
  rename_folder(target, old);
  rename_folder(temporary, target);
  sync_path(parent_of(target));
  remove_folder(old);
}

/// Removes what killed or failed saves left.
void remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> temporaries;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const size_t mark = name.find(kTemporaryMark);
    if (mark != std::string::npos && step_of(name.substr(0, mark)))
      temporaries.push_back(entry.path());
  }
  for (const fs::path& path : temporaries) remove_folder(path);
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:06}", kPrefix, step); }

fs::path prepare_checkpoint(const fs::path& folder, int64_t step) {
  const fs::path temporary = with_mark(folder / checkpoint_name(step), "save");
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) remove_temporaries(folder);
  if (!error) fs::create_directory(temporary, error);
  if (error) fail("cannot create {}: {}", temporary.string(), error.message());
  return temporary;
}

CheckpointFileEntry write_checkpoint_part(const fs::path& temporary, int64_t rank, int64_t ranks,
                                          std::span<const ModulePart> parts,
                                          const PieceRunner& run_piece) {
  const std::string name = rank_file_name(rank, ranks);
  try {
    RankFile file = write_rank_file(temporary / name, parts, run_piece);
    return {name, file.bytes, std::move(file.sha256), held_modules(parts)};
  } catch (const Error& error) {
    fail("{}; earlier checkpoints are untouched", error.what());
  }
}

void complete_checkpoint(const fs::path& folder, const CheckpointInfo& info,
                         std::span<const StoredModule> modules,
                         const std::vector<CheckpointFileEntry>& entries,
                         const fs::path& tokenizer_source, const std::string& chat_template) {
  Manifest manifest;
  manifest.info = info;
  manifest.modules.assign(modules.begin(), modules.end());
  manifest.rank_files = entries;
  const fs::path tokenizer = folder / kTokenizerFolder;
  if (!tokenizer_source.empty()) {
    std::error_code error;
    fs::create_directory(tokenizer, error);
    if (error) fail("cannot create {}: {}", tokenizer.string(), error.message());
    std::vector<std::string_view> names = copy_companion_files(tokenizer_source, tokenizer);
    if (!chat_template.empty()) {
      write_file_atomic(tokenizer / kChatTemplateFile, chat_template);
      if (std::find(names.begin(), names.end(), kChatTemplateFile) == names.end())
        names.push_back(kChatTemplateFile);
    }
    for (const std::string_view name : names) {
      manifest.tokenizer.push_back(
          describe_file(folder, fmt::format("{}/{}", kTokenizerFolder, name)));
    }
    sync_path(tokenizer);
  }
  write_manifest(folder, manifest);
  sync_path(folder);
}

void publish_checkpoint(const fs::path& temporary, const fs::path& target,
                        const CheckpointInfo& info, std::span<const StoredModule> modules,
                        const std::vector<CheckpointFileEntry>& entries,
                        const fs::path& tokenizer_source, const std::string& chat_template) {
  try {
    complete_checkpoint(temporary, info, modules, entries, tokenizer_source, chat_template);
    fault_point(FaultPoint::kCheckpointPublish);
    replace_folder(temporary, target);
    sync_path(parent_of(target));
  } catch (const Error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);  // what fills the disk goes at once
    fail("{}; earlier checkpoints are untouched", error.what());
  }
}

std::vector<CheckpointSummary> list_checkpoints(const fs::path& folder) {
  std::vector<CheckpointSummary> result;
  for (const auto& [step, path] : step_folders(folder)) {
    CheckpointSummary summary;
    summary.folder = path;
    summary.step = step;
    try {
      const Manifest manifest = read_manifest(path);
      summary.info = manifest.info;
      summary.saving_ranks = std::ssize(manifest.rank_files);
      for (const auto* list : {&manifest.rank_files, &manifest.tokenizer}) {
        for (const CheckpointFileEntry& entry : *list) summary.bytes += entry.bytes;
      }
      if (manifest.info.step != step)
        summary.problem = fmt::format("its manifest is of step {}", manifest.info.step);
    } catch (const std::exception& error) {
      summary.problem = describe_error(error).text;
    }
    result.push_back(std::move(summary));
  }
  return result;
}

std::optional<Checkpoint> latest_good_checkpoint(const fs::path& folder,
                                                 const RejectedCheckpoint& rejected,
                                                 const PieceRunner& run_piece) {
  auto folders = step_folders(folder);
  std::vector<std::pair<fs::path, OldFormat>> old;
  for (auto it = folders.rbegin(); it != folders.rend(); ++it) {
    try {
      Checkpoint checkpoint(it->second, Checkpoint::Verify::kAll, run_piece);
      if (checkpoint.info().step == it->first) {
        for (const auto& [path, error] : old) rejected(path, error.what());
        return checkpoint;
      }
      rejected(it->second, fmt::format("its manifest is of step {}", checkpoint.info().step));
    } catch (const OldFormat& error) {
      old.emplace_back(it->second, error);
    } catch (const std::exception& error) {
      rejected(it->second, describe_error(error).text);
    }
  }
  if (!old.empty()) throw old.front().second;
  return std::nullopt;
}

void remove_old_checkpoints(const fs::path& folder, int64_t keep, std::set<fs::path>* verified,
                            const PieceRunner& run_piece) {
  if (!fs::is_directory(folder)) return;
  const auto is_good = [&](const fs::path& path, int64_t step) {
    if (verified != nullptr && verified->contains(path)) return true;
    try {
      if (Checkpoint(path, Checkpoint::Verify::kAll, run_piece).info().step != step) return false;
    } catch (const std::exception&) {
      return false;
    }
    if (verified != nullptr) verified->insert(path);
    return true;
  };
  const auto folders = step_folders(folder);
  int64_t good = 0;
  // When there are no more folders than are kept, none needs to be verified.
  const bool may_remove = keep > 0 && std::ssize(folders) > keep;
  for (auto it = folders.rbegin(); may_remove && it != folders.rend(); ++it) {
    const auto& [step, path] = *it;
    if (!is_good(path, step) || ++good <= keep) continue;
    // The folder is renamed first, so that a kill during the removal does not leave
    // half a checkpoint under its name.
    const fs::path doomed = with_mark(path, "removed");
    remove_folder(doomed);
    rename_folder(path, doomed);
    if (verified != nullptr) verified->erase(path);
    fault_point(FaultPoint::kCheckpointRemove);
  }
  remove_temporaries(folder);
}

}  // namespace orrery::storage
