#include "rollout/rollout_file.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/sha256.h"
#include "rollout/rollout_file_layout.h"
#include "storage/hdf5_arrays.h"
#include "text/tokenizer_utf8.h"

namespace orrery::rollout {
namespace {

using namespace layout;

/// The bytes as valid UTF-8, whatever a file's name holds: readers in other languages
/// count on it.
std::string lossy(const std::string& bytes) {
  std::string text;
  text::append_lossy_utf8(bytes, /*more_follows=*/false, text);
  return text;
}

template <class T>
void append(std::vector<T>& all, const std::vector<T>& part) {
  all.insert(all.end(), part.begin(), part.end());
}

/// Where the columns have this fingerprint and device; adds them where they have not.
uint8_t fingerprint_index(Columns& c, const std::string& fingerprint, const std::string& device) {
  size_t index = 0;
  while (index < c.fingerprints.size() &&
         (c.fingerprints[index] != fingerprint || c.devices[index] != device))
    ++index;
  ORRERY_CHECK(index < 255, "more than 255 fingerprints in one step");
  if (index == c.fingerprints.size()) {
    c.fingerprints.push_back(fingerprint);
    c.devices.push_back(device);
  }
  return index;
}

void add_sample(Columns& c, const Trajectory& t) {
  const size_t n = t.tokens.size();
  ORRERY_CHECK(t.logprobs.size() == n && t.entropies.size() == n && t.loss_mask.size() == n &&
                   t.weight_versions.size() == n,
               "prompt {} sample {}: arrays of different lengths", t.prompt_index, t.sample_index);
  c.group.push_back(std::ssize(c.prompt_offsets) - 2);
  c.prompt_index.push_back(t.prompt_index);
  c.sample_index.push_back(t.sample_index);
  c.request_step.push_back(t.step);
  append(c.tokens, t.tokens);
  append(c.logprobs, t.logprobs);
  append(c.entropies, t.entropies);
  append(c.loss_mask, t.loss_mask);
  append(c.weight_versions, t.weight_versions);
  c.token_offsets.push_back(std::ssize(c.tokens));
  c.rewards.push_back(t.reward);
  c.finish_reason.push_back(static_cast<int8_t>(t.finish_reason));
  c.response_text.push_back(lossy(t.response_text));
  c.data_source.push_back(lossy(t.data_source));
  c.truth.push_back(lossy(t.truth));
  c.data_file.push_back(lossy(t.data_file));
  c.data_row.push_back(t.data_row);
  for (const std::string& name : c.reward_extra_names) {
    const auto value = t.reward_extra.find(name);
    c.reward_extra.push_back(
        value == t.reward_extra.end() ? std::numeric_limits<double>::quiet_NaN() : value->second);
  }
  c.fingerprint_index.push_back(fingerprint_index(c, fingerprint_text(t.fingerprint), t.device));
}

Columns make_columns(std::span<const Group> groups, std::span<const std::string> prompt_texts) {
  ORRERY_CHECK(prompt_texts.empty() || prompt_texts.size() == groups.size(),
               "{} texts of {} prompts", prompt_texts.size(), groups.size());
  Columns c;
  std::set<std::string> names;
  for (const Group& group : groups) {
    for (const Trajectory& t : group.samples) {
      for (const auto& [name, value] : t.reward_extra) names.insert(name);
    }
  }
  c.reward_extra_names.assign(names.begin(), names.end());
  for (size_t g = 0; g < groups.size(); ++g) {
    const Group& group = groups[g];
    if (group.samples.empty()) continue;
    if (!prompt_texts.empty()) c.prompt_text.push_back(lossy(prompt_texts[g]));
    c.dropped.push_back(group.dropped);
    append(c.prompt_tokens, group.samples.front().prompt_tokens);
    c.prompt_offsets.push_back(std::ssize(c.prompt_tokens));
    for (const Trajectory& t : group.samples) {
      ORRERY_CHECK(t.prompt_tokens == group.samples.front().prompt_tokens,
                   "prompt {}: samples of different prompts", t.prompt_index);
      add_sample(c, t);
    }
  }
  return c;
}

}  // namespace

void write_rollout_file(const std::filesystem::path& path, uint64_t step,
                        std::span<const Group> groups, std::optional<uint64_t> stage_step,
                        const RolloutNotes& notes) {
  fault_point(FaultPoint::kRolloutWrite);
  const Columns c = make_columns(groups, notes.prompt_texts);
  storage::Hdf5Writer out(path);
  out.attribute("format", std::vector<std::string>{kFormat});
  out.attribute("format_version", kFormatVersion);
  out.attribute("step", step);
  if (stage_step) out.attribute("stage_step", *stage_step);
  out.attribute("stage", std::vector<std::string>{notes.stage});
  out.attribute("fingerprint", c.fingerprints);
  out.attribute("device", c.devices);
  if (notes.drawn) out.attribute("drawn", std::vector<std::string>{draw_record_text(*notes.drawn)});
  out.write("group", c.group);
  out.write("prompt_offsets", c.prompt_offsets);
  out.write("prompt_tokens", c.prompt_tokens);
  out.write("prompt_index", c.prompt_index);
  out.write("sample_index", c.sample_index);
  out.write("request_step", c.request_step);
  out.write("token_offsets", c.token_offsets);
  out.write("tokens", c.tokens);
  out.write("logprobs", c.logprobs);
  out.write("entropies", c.entropies);
  out.write("loss_mask", c.loss_mask);
  out.write("weight_versions", c.weight_versions);
  out.write("rewards", c.rewards);
  if (!c.reward_extra_names.empty()) {
    out.attribute("reward_extra_names", c.reward_extra_names);
    out.write("reward_extra", c.reward_extra,
              {std::ssize(c.group), std::ssize(c.reward_extra_names)});
  }
  std::vector<std::string> reasons;
  for (const FinishReason reason : kFinishReasons) reasons.emplace_back(finish_reason_name(reason));
  out.write("finish_reason", c.finish_reason);
  out.attribute("names", reasons, "finish_reason");
  out.write("fingerprint_index", c.fingerprint_index);
  out.write("response_text", c.response_text);
  out.write("data_source", c.data_source);
  out.write("truth", c.truth);
  out.write("data_file", c.data_file);
  out.write("data_row", c.data_row);
  if (!notes.prompt_texts.empty()) out.write("prompt_text", c.prompt_text);
  out.write("dropped", c.dropped);
  out.publish();
  write_rollout_checksum(path);
}

std::filesystem::path rollout_checksum_path(std::filesystem::path path) {
  path += ".sha256";
  return path;
}

void write_rollout_checksum(const std::filesystem::path& path) {
  const std::string digest = sha256_hex(MappedFile(path).bytes());
  write_file_atomic(rollout_checksum_path(path),
                    fmt::format("{}  {}\n", digest, path.filename().string()));
}

}  // namespace orrery::rollout
