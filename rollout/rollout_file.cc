#include "rollout/rollout_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/sha256.h"
#include "rollout/hdf5_arrays.h"

namespace orrery {
namespace {

constexpr const char* kFormat = "orrery-rollouts";
constexpr uint32_t kFormatVersion = 1;
constexpr FinishReason kFinishReasons[] = {FinishReason::kStop, FinishReason::kLength, FinishReason::kAbort};

std::string fingerprint_text(const Fingerprint& f) {
  return fmt::format("{}/{}/{}", f.backend, f.kernel_version, dtype_name(f.compute_dtype));
}

Fingerprint fingerprint_from_text(const std::string& text, const std::string& path) {
  const size_t first = text.find('/'), last = text.rfind('/');
  if (first != std::string::npos && first < last) {
    Fingerprint f;
    f.backend = text.substr(0, first);
    const std::string version = text.substr(first + 1, last - first - 1);
    const bool number = !version.empty() && version.size() <= 9 &&
                        std::ranges::all_of(version, [](char c) { return c >= '0' && c <= '9'; });
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (!number || text.substr(last + 1) != dtype_name(dtype)) continue;
      f.kernel_version = static_cast<uint32_t>(std::stoul(version));
      f.compute_dtype = dtype;
      return f;
    }
  }
  fail("{}: attribute fingerprint holds \"{}\": expected backend/kernel_version/compute_dtype", path, text);
}

/// The file's columns in memory.
struct Columns {
  std::vector<int64_t> group, prompt_offsets{0}, token_offsets{0};
  std::vector<int32_t> prompt_tokens, tokens;
  std::vector<uint64_t> prompt_index, request_step, weight_versions;
  std::vector<uint32_t> sample_index;
  std::vector<float> logprobs, entropies, rewards;
  std::vector<double> reward_extra;
  std::vector<uint8_t> loss_mask, fingerprint_index;
  std::vector<int8_t> finish_reason;
  std::vector<std::string> response_text, data_source, fingerprints, reward_extra_names;
};

template <class T>
void append(std::vector<T>& all, const std::vector<T>& part) {
  all.insert(all.end(), part.begin(), part.end());
}

void add_sample(Columns& c, const Trajectory& t) {
  const size_t n = t.tokens.size();
  ORRERY_CHECK(t.logprobs.size() == n && t.entropies.size() == n && t.loss_mask.size() == n &&
                   t.weight_versions.size() == n,
               "prompt {} sample {}: arrays of different lengths", t.prompt_index, t.sample_index);
  c.group.push_back(static_cast<int64_t>(c.prompt_offsets.size()) - 2);
  c.prompt_index.push_back(t.prompt_index);
  c.sample_index.push_back(t.sample_index);
  c.request_step.push_back(t.step);
  append(c.tokens, t.tokens);
  append(c.logprobs, t.logprobs);
  append(c.entropies, t.entropies);
  append(c.loss_mask, t.loss_mask);
  append(c.weight_versions, t.weight_versions);
  c.token_offsets.push_back(static_cast<int64_t>(c.tokens.size()));
  c.rewards.push_back(t.reward);
  c.finish_reason.push_back(static_cast<int8_t>(t.finish_reason));
  c.response_text.push_back(t.response_text);
  c.data_source.push_back(t.data_source);
  for (const std::string& name : c.reward_extra_names) {
    const auto value = t.reward_extra.find(name);
    c.reward_extra.push_back(value == t.reward_extra.end() ? std::numeric_limits<double>::quiet_NaN()
                                                           : value->second);
  }
  const std::string fingerprint = fingerprint_text(t.fingerprint);
  const auto known = std::ranges::find(c.fingerprints, fingerprint);
  ORRERY_CHECK(known - c.fingerprints.begin() < 255, "more than 255 fingerprints in one step");
  c.fingerprint_index.push_back(static_cast<uint8_t>(known - c.fingerprints.begin()));
  if (known == c.fingerprints.end()) c.fingerprints.push_back(fingerprint);
}

Columns make_columns(std::span<const Group> groups) {
  Columns c;
  std::set<std::string> names;
  for (const Group& group : groups) {
    for (const Trajectory& t : group.samples) {
      for (const auto& [name, value] : t.reward_extra) names.insert(name);
    }
  }
  c.reward_extra_names.assign(names.begin(), names.end());
  for (const Group& group : groups) {
    if (group.samples.empty()) continue;
    append(c.prompt_tokens, group.samples.front().prompt_tokens);
    c.prompt_offsets.push_back(static_cast<int64_t>(c.prompt_tokens.size()));
    for (const Trajectory& t : group.samples) {
      ORRERY_CHECK(t.prompt_tokens == group.samples.front().prompt_tokens,
                   "prompt {}: samples of different prompts", t.prompt_index);
      add_sample(c, t);
    }
  }
  return c;
}

void check_offsets(const std::vector<int64_t>& offsets, size_t total, const char* name,
                   const std::string& path) {
  const bool good = !offsets.empty() && offsets.front() == 0 &&
                    offsets.back() == static_cast<int64_t>(total) && std::ranges::is_sorted(offsets);
  if (!good) fail("{}: {} must rise from 0 to {}, the length of its data", path, name, total);
}

Columns read_columns(const Hdf5Reader& in) {
  Columns c;
  c.fingerprints = in.string_attribute("fingerprint");
  if (in.has_attribute("reward_extra_names"))
    c.reward_extra_names = in.string_attribute("reward_extra_names");
  in.read("token_offsets", c.token_offsets);
  in.read("prompt_offsets", c.prompt_offsets);
  in.read("tokens", c.tokens);
  in.read("prompt_tokens", c.prompt_tokens);
  check_offsets(c.token_offsets, c.tokens.size(), "token_offsets", in.path());
  check_offsets(c.prompt_offsets, c.prompt_tokens.size(), "prompt_offsets", in.path());
  const size_t samples = c.token_offsets.size() - 1;
  const auto rows = [&](const char* name, auto& column, size_t count) {
    in.read(name, column);
    if (column.size() != count) {
      fail("{}: dataset {} has {} entries, {} expected", in.path(), name, column.size(), count);
    }
  };
  rows("logprobs", c.logprobs, c.tokens.size());
  rows("entropies", c.entropies, c.tokens.size());
  rows("loss_mask", c.loss_mask, c.tokens.size());
  rows("weight_versions", c.weight_versions, c.tokens.size());
  rows("group", c.group, samples);
  rows("prompt_index", c.prompt_index, samples);
  rows("sample_index", c.sample_index, samples);
  rows("request_step", c.request_step, samples);
  rows("rewards", c.rewards, samples);
  if (!c.reward_extra_names.empty())
    rows("reward_extra", c.reward_extra, samples * c.reward_extra_names.size());
  rows("finish_reason", c.finish_reason, samples);
  rows("fingerprint_index", c.fingerprint_index, samples);
  rows("response_text", c.response_text, samples);
  rows("data_source", c.data_source, samples);
  return c;
}

Trajectory sample_of(const Columns& c, size_t s, const std::vector<Fingerprint>& fingerprints,
                     const std::string& path) {
  const auto out_of_range = [&](const char* name, int64_t value) {
    fail("{}: {}[{}] is {}, which is out of range", path, name, s, value);
  };
  const int64_t group = c.group[s];
  const int64_t previous = s == 0 ? -1 : c.group[s - 1];
  const bool next = group == previous || group == previous + 1;
  if (!next || group < 0 || group >= static_cast<int64_t>(c.prompt_offsets.size()) - 1)
    out_of_range("group", group);
  if (c.finish_reason[s] < 0 || c.finish_reason[s] >= std::ssize(kFinishReasons)) {
    out_of_range("finish_reason", c.finish_reason[s]);
  }
  if (c.fingerprint_index[s] >= fingerprints.size())
    out_of_range("fingerprint_index", c.fingerprint_index[s]);

  const auto slice = [](const auto& flat, const std::vector<int64_t>& offsets, size_t row) {
    return std::remove_cvref_t<decltype(flat)>(flat.begin() + offsets[row], flat.begin() + offsets[row + 1]);
  };
  Trajectory t;
  t.step = c.request_step[s];
  t.prompt_index = c.prompt_index[s];
  t.sample_index = c.sample_index[s];
  t.prompt_tokens = slice(c.prompt_tokens, c.prompt_offsets, static_cast<size_t>(group));
  t.tokens = slice(c.tokens, c.token_offsets, s);
  t.logprobs = slice(c.logprobs, c.token_offsets, s);
  t.entropies = slice(c.entropies, c.token_offsets, s);
  t.loss_mask = slice(c.loss_mask, c.token_offsets, s);
  t.weight_versions = slice(c.weight_versions, c.token_offsets, s);
  t.reward = c.rewards[s];
  t.finish_reason = kFinishReasons[static_cast<uint8_t>(c.finish_reason[s])];
  t.data_source = c.data_source[s];
  t.response_text = c.response_text[s];
  t.fingerprint = fingerprints[c.fingerprint_index[s]];
  const size_t extras = c.reward_extra_names.size();
  for (size_t k = 0; k < extras; ++k) {
    const double value = c.reward_extra[s * extras + k];
    if (!std::isnan(value)) t.reward_extra[c.reward_extra_names[k]] = value;
  }
  return t;
}

std::filesystem::path checksum_path(std::filesystem::path path) {
  path += ".sha256";
  return path;
}

/// The HDF5 library crashes on some damaged files, so none is parsed before its digest is right.
void verify_checksum(const std::filesystem::path& path) {
  const std::string digest = sha256_hex(MappedFile(path).bytes());
  const std::filesystem::path beside = checksum_path(path);
  if (!std::filesystem::exists(beside)) {
    fail("{}: its checksum {} is missing, so it cannot be trusted", path.string(),
         beside.filename().string());
  }
  if (!read_file(beside).starts_with(digest)) {
    fail("{} is damaged: its SHA-256 is not the one in {}", path.string(), beside.filename().string());
  }
}

}  // namespace

void write_rollout_file(const std::filesystem::path& path, uint64_t step, std::span<const Group> groups,
                        std::optional<uint64_t> stage_step) {
  fault_point(FaultPoint::kRolloutWrite);
  const Columns c = make_columns(groups);
  const auto samples = static_cast<int64_t>(c.group.size());
  Hdf5Writer out(path);
  out.attribute("format", std::vector<std::string>{kFormat});
  out.attribute("format_version", kFormatVersion);
  out.attribute("step", step);
  if (stage_step) out.attribute("stage_step", *stage_step);
  out.attribute("fingerprint", c.fingerprints);
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
    out.write("reward_extra", c.reward_extra, {samples, static_cast<int64_t>(c.reward_extra_names.size())});
  }
  std::vector<std::string> reasons;
  for (const FinishReason reason : kFinishReasons) reasons.emplace_back(finish_reason_name(reason));
  out.write("finish_reason", c.finish_reason);
  out.attribute("names", reasons, "finish_reason");
  out.write("fingerprint_index", c.fingerprint_index);
  out.write("response_text", c.response_text);
  out.write("data_source", c.data_source);
  out.publish();
  write_rollout_checksum(path);
}

void write_rollout_checksum(const std::filesystem::path& path) {
  const std::string digest = sha256_hex(MappedFile(path).bytes());
  write_file_atomic(checksum_path(path), fmt::format("{}  {}\n", digest, path.filename().string()));
}

RolloutFile read_rollout_file(const std::filesystem::path& path) {
  verify_checksum(path);
  const Hdf5Reader in(path);
  const std::vector<std::string> format = in.string_attribute("format");
  if (format.size() != 1 || format[0] != kFormat)
    fail("{} is not a rollout file: attribute format differs", in.path());
  const uint64_t version = in.integer_attribute("format_version");
  if (version != kFormatVersion) {
    fail("{}: format_version is {}, this program reads {}", in.path(), version, kFormatVersion);
  }
  const Columns c = read_columns(in);
  std::vector<Fingerprint> fingerprints;
  for (const std::string& text : c.fingerprints)
    fingerprints.push_back(fingerprint_from_text(text, in.path()));

  RolloutFile file;
  file.step = in.integer_attribute("step");
  file.stage_step = in.has_attribute("stage_step") ? in.integer_attribute("stage_step") : file.step;
  for (size_t s = 0; s < c.group.size(); ++s) {
    Trajectory sample = sample_of(c, s, fingerprints, in.path());
    if (s == 0 || c.group[s] != c.group[s - 1]) file.groups.push_back({sample.step, sample.prompt_index, {}});
    file.groups.back().samples.push_back(std::move(sample));
  }
  return file;
}

}  // namespace orrery
