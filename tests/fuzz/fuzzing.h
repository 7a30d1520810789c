// What the fuzz targets share. A target is a small LLVMFuzzerTestOneInput over one real
// entry point. An orrery::Error is how bad input ends; anything else that leaves the
// target (a crash, a sanitizer's report, another exception, a broken promise) is a
// finding. tools/fuzz.sh runs the targets.
#pragma once

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace orrery::fuzzing {

/// A promise of the code under test that the input broke.
[[noreturn]] inline void broken(const std::string& promise) {
  std::fprintf(stderr, "broken promise: %s\n", promise.c_str());
  std::abort();
}

/// Runs body; true when it ended without an Error. One of ORRERY_CHECK is a finding:
/// bad input must not reach our own invariants.
template <class Body>
bool accepted(Body&& body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    const std::string_view what = error.what();
    if (what.starts_with("internal check failed")) broken(std::string(what));
    return false;
  }
}

/// The parts of a text input between lines "===".
inline std::vector<std::string> parts(std::span<const uint8_t> input) {
  constexpr std::string_view kBetween = "\n===\n";
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t at = text.find(kBetween); at != std::string_view::npos;
       at = text.find(kBetween, begin)) {
    out.emplace_back(text.substr(begin, at - begin));
    begin = at + kBetween.size();
  }
  out.emplace_back(text.substr(begin));
  return out;
}

/// A folder for this process, in $TMPDIR (tools/fuzz.sh: in memory).
class Scratch {
 public:
  Scratch()
      : path_(std::filesystem::temp_directory_path() /
              ("orrery_fuzz_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
    spdlog::set_level(spdlog::level::off);  // warnings about skipped rows are expected in bulk
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(const std::string& name, std::string_view contents) const {
    std::ofstream file(path_ / name, std::ios::binary | std::ios::trunc);
    file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
    file.close();
    if (!file) broken("the scratch folder can be written");
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace orrery::fuzzing
