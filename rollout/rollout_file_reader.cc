// The reader of rollout/rollout_file.h.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/sha256.h"
#include "rollout/rollout_file.h"
#include "rollout/rollout_file_layout.h"
#include "storage/hdf5_arrays.h"

namespace orrery::rollout {
namespace {

using namespace layout;

/// A fingerprint of the file, and the device beside it.
struct Origin {
  Fingerprint fingerprint;
  std::string device;
};

std::vector<Origin> origins_of(const Columns& c, uint64_t version, const std::string& path) {
  std::vector<Origin> origins;
  for (const std::string& text : c.fingerprints) {
    if (version < 3) {
      const auto old = old_fingerprint_from_text(text);
      if (!old) {
        fail(
            "{}: attribute fingerprint holds \"{}\": expected backend/kernel_version/compute_dtype",
            path, text);
      }
      origins.push_back({old->fingerprint, old->device});
      continue;
    }
    const auto fingerprint = fingerprint_from_text(text);
    if (!fingerprint) {
      fail("{}: attribute fingerprint holds \"{}\": expected class/version, with class {}", path,
           text, numerics_class_names());
    }
    origins.push_back({*fingerprint, c.devices.empty() ? "" : c.devices[origins.size()]});
  }
  return origins;
}

void check_offsets(const std::vector<int64_t>& offsets, int64_t total, const char* name,
                   const std::string& path) {
  const bool good = !offsets.empty() && offsets.front() == 0 && offsets.back() == total &&
                    std::ranges::is_sorted(offsets);
  if (!good) fail("{}: {} must rise from 0 to {}, the length of its data", path, name, total);
}

Columns read_columns(const storage::Hdf5Reader& in) {
  Columns c;
  c.fingerprints = in.string_attribute("fingerprint");
  if (in.has_attribute("device")) {
    c.devices = in.string_attribute("device");
    if (c.devices.size() != c.fingerprints.size()) {
      fail("{}: attribute device has {} entries, {} expected", in.path(), c.devices.size(),
           c.fingerprints.size());
    }
  }
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
  const auto rows_if_there = [&](const char* name, auto& column, size_t count) {
    if (in.has_dataset(name)) {
      rows(name, column, count);
    } else {
      column.assign(count, {});
    }
  };
  const size_t groups = c.prompt_offsets.size() - 1;
  rows_if_there("truth", c.truth, samples);
  rows_if_there("data_file", c.data_file, samples);
  rows_if_there("data_row", c.data_row, samples);
  rows_if_there("dropped", c.dropped, groups);
  if (in.has_dataset("prompt_text")) rows("prompt_text", c.prompt_text, groups);
  return c;
}

Trajectory sample_of(const Columns& c, size_t s, const std::vector<Origin>& origins,
                     const std::string& path) {
  const auto out_of_range = [&](const char* name, int64_t value) {
    fail("{}: {}[{}] is {}, which is out of range", path, name, s, value);
  };
  const int64_t group = c.group[s];
  const int64_t previous = s == 0 ? -1 : c.group[s - 1];
  const bool next = group == previous || group == previous + 1;
  if (!next || group < 0 || group >= std::ssize(c.prompt_offsets) - 1) out_of_range("group", group);
  if (c.finish_reason[s] < 0 || c.finish_reason[s] >= std::ssize(kFinishReasons)) {
    out_of_range("finish_reason", c.finish_reason[s]);
  }
  if (c.fingerprint_index[s] >= origins.size())
    out_of_range("fingerprint_index", c.fingerprint_index[s]);

  const auto slice = [](const auto& flat, const std::vector<int64_t>& offsets, int64_t row) {
    return std::remove_cvref_t<decltype(flat)>(flat.begin() + offsets[row],
                                               flat.begin() + offsets[row + 1]);
  };
  Trajectory t;
  t.step = c.request_step[s];
  t.prompt_index = c.prompt_index[s];
  t.sample_index = c.sample_index[s];
  t.prompt_tokens = slice(c.prompt_tokens, c.prompt_offsets, group);
  t.tokens = slice(c.tokens, c.token_offsets, s);
  t.logprobs = slice(c.logprobs, c.token_offsets, s);
  t.entropies = slice(c.entropies, c.token_offsets, s);
  t.loss_mask = slice(c.loss_mask, c.token_offsets, s);
  t.weight_versions = slice(c.weight_versions, c.token_offsets, s);
  t.reward = c.rewards[s];
  t.finish_reason = kFinishReasons[c.finish_reason[s]];
  t.data_source = c.data_source[s];
  t.response_text = c.response_text[s];
  t.truth = c.truth[s];
  t.data_file = c.data_file[s];
  t.data_row = c.data_row[s];
  t.fingerprint = origins[c.fingerprint_index[s]].fingerprint;
  t.device = origins[c.fingerprint_index[s]].device;
  const size_t extras = c.reward_extra_names.size();
  for (size_t k = 0; k < extras; ++k) {
    const double value = c.reward_extra[s * extras + k];
    if (!std::isnan(value)) t.reward_extra[c.reward_extra_names[k]] = value;
  }
  return t;
}

RolloutFile read_columns_of(const std::filesystem::path& path) {
  const storage::Hdf5Reader in(path);
  if (!in.has_attribute("format") ||
      in.string_attribute("format") != std::vector<std::string>{kFormat}) {
    fail("{} is not a rollouts file: it has no attribute format that says {}", in.path(), kFormat);
  }
  const uint64_t version = in.integer_attribute("format_version");
  if (version == 0 || version > kFormatVersion) {
    fail(
        "{}: format_version is {}, and this program reads 1 to {}; "
        "read it with the program that wrote it",
        in.path(), version, kFormatVersion);
  }
  const Columns c = read_columns(in);
  const std::vector<Origin> origins = origins_of(c, version, in.path());

  RolloutFile file;
  file.step = in.integer_attribute("step");
  file.stage_step = in.has_attribute("stage_step") ? in.integer_attribute("stage_step") : file.step;
  if (in.has_attribute("stage")) {
    const std::vector<std::string> stage = in.string_attribute("stage");
    if (stage.size() != 1) fail("{}: attribute stage is not one string", in.path());
    file.stage = stage[0];
  }
  if (in.has_attribute("drawn")) {
    const std::vector<std::string> drawn = in.string_attribute("drawn");
    if (drawn.size() != 1) fail("{}: attribute drawn is not one string", in.path());
    file.drawn = draw_record_from_text(drawn[0], in.path());
  }
  for (size_t s = 0; s < c.group.size(); ++s) {
    Trajectory sample = sample_of(c, s, origins, in.path());
    if (s == 0 || c.group[s] != c.group[s - 1]) {
      const int64_t group = c.group[s];
      file.groups.push_back({sample.step, sample.prompt_index, {}, c.dropped[group]});
      if (!c.prompt_text.empty()) file.prompt_texts.push_back(c.prompt_text[group]);
    }
    file.groups.back().samples.push_back(std::move(sample));
  }
  return file;
}

/// The HDF5 library crashes on some damaged files, so no file is parsed in this process
/// before its digest is right.
void verify_checksum(const std::filesystem::path& path, const std::filesystem::path& beside) {
  const std::string digest = sha256_hex(MappedFile(path).bytes());
  if (!read_file(beside).starts_with(digest)) {
    fail("{} is damaged: its SHA-256 is not the one in {}", path.string(),
         beside.filename().string());
  }
}

/// Limits the child, so that reading a file cannot take the machine with it.
void limit_child(uint64_t file_bytes) {
  const auto lower = [](auto resource, rlim_t value) {
    rlimit limit{};
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur <= value) return;
    limit.rlim_cur = value;
    setrlimit(resource, &limit);
  };
  lower(RLIMIT_CORE, 0);
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  if (pages > 0) {
    const uint64_t now = pages * sysconf(_SC_PAGESIZE);
    lower(RLIMIT_AS, now + 16 * file_bytes + (uint64_t{1} << 30));
  }
  // Damage can send the library round in circles. The limit counts the child's own
  // time, because the machine may be busy.
  constexpr uint64_t kBytesPerSecond = 20'000'000;
  const uint64_t seconds = 5 + file_bytes / kBytesPerSecond;
  lower(RLIMIT_CPU, seconds);
  alarm(60 + 10 * seconds);
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM, SIGXCPU})
    std::signal(number, SIG_DFL);
  if (const int nowhere = open("/dev/null", O_WRONLY); nowhere >= 0) dup2(nowhere, STDERR_FILENO);
}

/// Reads the file in a child process, and fails here as the child does. In this process
/// some damaged files would leave the library in a bad state.
void read_in_child(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  if (error) fail("cannot open {}: {}", path.string(), error.message());
  int ends[2];
  if (pipe(ends) != 0)
    fail("{}: no pipe to a process to read it: {}", path.string(), std::strerror(errno));
  const pid_t child = fork();
  if (child < 0)
    fail("{}: cannot start a process to read it: {}", path.string(), std::strerror(errno));
  if (child == 0) {
    limit_child(bytes);
    std::string problem;
    int code = 0;
    try {
      read_columns_of(path);
    } catch (const Error& told) {
      problem = told.what();
    } catch (...) {  // out of memory
      code = 1;
    }
    if (write(ends[1], problem.data(), problem.size()) != std::ssize(problem)) code = 1;
    _exit(code);
  }
  close(ends[1]);
  std::string problem;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof(buffer))) != 0;) {
    if (n > 0) problem.append(buffer, n);
    if (n < 0 && errno != EINTR) break;
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail("{} is damaged: the HDF5 library fails on it", path.string());
  if (!problem.empty()) fail("{}", problem);
}

}  // namespace

RolloutFile read_rollout_file(const std::filesystem::path& path, MissingChecksum missing) {
  const std::filesystem::path beside = rollout_checksum_path(path);
  if (std::filesystem::exists(beside)) {
    verify_checksum(path, beside);
  } else if (missing == MissingChecksum::kReadInChildFirst) {
    read_in_child(path);
  } else {
    const MappedFile there(path);  // an Error when it is not there at all
    fail("{}: its checksum {} is missing, so it cannot be trusted", path.string(),
         beside.filename().string());
  }
  return read_columns_of(path);
}

}  // namespace orrery::rollout
