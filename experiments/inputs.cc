#include "experiments/inputs.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/ascii.h"
#include "core/error.h"
#include "core/sha256.h"
#include "kernels/reductions.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReadOnce = "none: not a regular file";
constexpr const char* kUnreadable = "unreadable: ";
constexpr const char* kModelConfig = "config.json";
constexpr const char* kModelKey = "model.path";
constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kShownDigits = 12;

/// Replaces control characters, which neither messages nor manifests may have.
std::string plain(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return is_control(c) || c == kDelete; }, '?');
  return text.empty() ? "?" : text;
}

std::string file_digest(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status))
    return kReadOnce;
  std::ifstream file(path, std::ios::binary);
  if (!file) return kUnreadable + std::string(std::strerror(errno));
  Sha256 hash;
  std::string piece(kPiece, '\0');
  while (file) {
    file.read(piece.data(), std::ssize(piece));
    hash.update(std::string_view(piece).substr(0, file.gcount()));
  }
  if (file.bad()) return kUnreadable + std::string(std::strerror(errno));
  return "sha256:" + hash.hex();
}

/// The digest of what is read from config.json, so that a folder which another program
/// has rewritten is still the same.
std::string model_config_digest(const fs::path& folder) {
  try {
    const std::string text =
        models::model_config_json(models::load_model_config(folder), "float32");
    return "sha256:" + sha256_hex(std::as_bytes(std::span(text)));
  } catch (const Error& error) {
    return plain(kUnreadable + std::string(error.what()));
  }
}

bool is_of_model(const storage::InputDigest& input) { return input.key == kModelKey; }

}  // namespace

std::vector<storage::InputDigest> read_inputs(const proto::Config& config) {
  std::vector<storage::InputDigest> inputs;
  const auto add = [&](const char* key, const auto& files) {
    for (const std::string& file : files)
      inputs.push_back({key, plain(file), plain(file_digest(file))});
  };
  add("data.train_files", config.data().train_files());
  add("data.val_files", config.data().val_files());
  if (config.sft().total_training_steps() > 0) {
    add("sft.text_files", config.sft().text_files());
    add("sft.train_files", config.sft().train_files());
    add("sft.val_files", config.sft().val_files());
  }
  if (config.model().has_chat_template_file())
    add("model.chat_template_file", std::array{config.model().chat_template_file()});
  const fs::path folder = config.model().path();
  inputs.push_back({kModelKey, kModelConfig, model_config_digest(folder)});
  for (const std::string_view name : storage::companion_files()) {
    std::error_code error;
    if (!fs::exists(folder / name, error)) continue;
    inputs.push_back({kModelKey, std::string(name), plain(file_digest(folder / name))});
  }
  return inputs;
}

storage::InputDigest weights_input(const Context& ctx, Vec<const float> weights) {
  const kernels::FletcherSums sum = kernels::checksum(ctx, {.x = weights});
  return {kModelKey, "weights", fmt::format("sums:{:016x}{:016x}", sum.high, sum.low)};
}

std::string input_label(std::span<const storage::InputDigest> inputs, size_t at) {
  const storage::InputDigest& input = inputs[at];
  if (is_of_model(input)) return input.key + "/" + input.name;
  const auto before = std::ranges::count(inputs.first(at), input.key, &storage::InputDigest::key);
  return fmt::format("{}[{}]", input.key, before);
}

bool is_readable(const storage::InputDigest& input) {
  return !input.digest.starts_with(kUnreadable);
}

bool same_content(const storage::InputDigest& a, const storage::InputDigest& b) {
  return a.digest == b.digest || a.digest == kReadOnce || b.digest == kReadOnce;
}

std::string short_digest(const std::string& digest) {
  const size_t colon = digest.find(':');
  const bool hash = digest.starts_with("sha256:") || digest.starts_with("sums:");
  return hash && digest.size() > colon + kShownDigits
             ? digest.substr(0, colon + 1 + kShownDigits) + "..."
             : digest;
}

std::vector<std::string> input_changes(std::span<const storage::InputDigest> before,
                                       std::span<const storage::InputDigest> after) {
  const auto by_label = [](std::span<const storage::InputDigest> inputs) {
    std::map<std::string, const storage::InputDigest*> labels;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (is_of_model(inputs[i]) && inputs[i].name == kModelConfig) continue;
      labels[input_label(inputs, i)] = &inputs[i];
    }
    return labels;
  };
  const auto old = by_label(before), now = by_label(after);
  std::vector<std::string> changes;
  for (const auto& [label, was] : old) {
    const auto it = now.find(label);
    if (it == now.end()) {
      changes.push_back(fmt::format("{}: {} is gone", label, was->name));
    } else if (!same_content(*was, *it->second)) {
      changes.push_back(
          fmt::format("{}: {} held {}, {} {}", label, was->name, short_digest(was->digest),
                      was->name == it->second->name ? "now" : "now " + it->second->name + " holds",
                      short_digest(it->second->digest)));
    }
  }
  for (const auto& [label, is] : now) {
    if (!old.contains(label)) changes.push_back(fmt::format("{}: {} is new", label, is->name));
  }
  return changes;
}

}  // namespace orrery::experiments
