// What many tests need: a folder of their own, and the text of an error.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "core/error.h"

namespace orrery::testing_support {

/// A path for the running test, named `prefix` and the test's name; nothing is there at first, nor at the
/// end.
class ScratchPath {
 public:
  explicit ScratchPath(const std::string& prefix)
      : path_(std::filesystem::path(testing::TempDir()) /
              (prefix + testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(path_);
  }
  ~ScratchPath() { std::filesystem::remove_all(path_); }
  ScratchPath(const ScratchPath&) = delete;
  ScratchPath& operator=(const ScratchPath&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

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
