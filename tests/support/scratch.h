// What many tests need: a folder of their own, and the text of an error.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>

#include "core/error.h"

namespace orrery::testing_support {

/// An empty folder that no other process has, whatever runs beside this test: mkdtemp
/// names it. Gone at the end.
class ScratchFolder {
 public:
  ScratchFolder() : path_((std::filesystem::path(testing::TempDir()) / "orrery_XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create " + path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::filesystem::path path() const { return path_; }

 private:
  std::string path_;
};

/// A path in such a folder at which nothing is, at first.
class ScratchPath {
 public:
  explicit ScratchPath(const std::string& name) : path_(folder_.path() / name) {}
  const std::filesystem::path& path() const { return path_; }

 private:
  ScratchFolder folder_;
  std::filesystem::path path_;
};

/// What the Error says that `work` throws, which is to end a program with `exit_code`.
inline std::string error_with(const std::function<void()>& work, int exit_code = kExitFailure) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), exit_code);
    return error.what();
  }
  return "no error";
}

/// What the Error says that `work` throws.
inline std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace orrery::testing_support
