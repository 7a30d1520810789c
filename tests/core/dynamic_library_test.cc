// Libraries opened at run time: where they are looked for, and what an error says.
#include "core/dynamic_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>

#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

/// Variables that a test sets, and a folder of its own; both as before afterwards.
class DynamicLibraryTest : public testing::Test {
 protected:
  DynamicLibraryTest() {
    for (const char* name : {"CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "ORRERY_SMALL"}) set(name);
    set("PATH", (root_ / "bin").string());
  }
  ~DynamicLibraryTest() override {
    for (const auto& [name, value] : before_)
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::optional<std::string>& value = std::nullopt) {
    const char* const now = std::getenv(name.c_str());
    before_.try_emplace(name, now != nullptr ? std::optional<std::string>(now) : std::nullopt);
    value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  /// Makes the file, empty or as a copy of the library.
  std::string make(const fs::path& file, bool library) const {
    fs::create_directories((root_ / file).parent_path());
    if (library) {
      fs::copy_file(ORRERY_SMALL_LIBRARY, root_ / file);
    } else {
      std::ofstream(root_ / file) << "no library";
    }
    return (root_ / file).string();
  }
  std::string error() const {
    try {
      const DynamicLibrary library(place_);
      return "opened " + library.path();
    } catch (const Error& e) {
      return e.what();
    }
  }

  testing_support::ScratchFolder scratch_;
  const fs::path root_ = scratch_.path();
  LibraryPlace place_{.name = "Small",
                      .file = "libsmall_of_tests.so.2",
                      .variable = "ORRERY_SMALL",
                      .package_folder = "nvidia/small/lib",
                      .advice = "install it"};

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(DynamicLibraryTest, OpensWhatTheVariableNames) {
  set("ORRERY_SMALL", ORRERY_SMALL_LIBRARY);
  const DynamicLibrary library(place_);
  EXPECT_EQ(library.path(), ORRERY_SMALL_LIBRARY);
  EXPECT_EQ(library.function<int()>("small_answer")(), 42);
  try {
    library.function<int()>("absent");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()),
              std::string("Small (") + ORRERY_SMALL_LIBRARY + ") has no function absent");
  }
}

TEST_F(DynamicLibraryTest, TheVariablesPathIsTheOnlyOne) {
  set("CUDA_HOME", (root_ / "cuda").string());
  make("cuda/lib64/libsmall_of_tests.so.2", true);
  set("ORRERY_SMALL", "/nowhere/libsmall.so");
  EXPECT_EQ(
      error(),
      "ORRERY_SMALL is '/nowhere/libsmall.so', which is to be Small (libsmall_of_tests.so.2): "
      "cannot open shared object file: No such file or directory: name the file, or unset it");
}

TEST_F(DynamicLibraryTest, LooksIntoCudasFolderAndThenIntoPythons) {
  set("VIRTUAL_ENV", (root_ / "venv").string());
  const std::string of_python =
      make("lib/python3/dist-packages/nvidia/small/lib/libsmall_of_tests.so.2", true);
  EXPECT_THAT(error(), StartsWith("Small (libsmall_of_tests.so.2) cannot be opened"))
      << "there is no python3 on PATH yet";
  make("bin/python3", false);
  EXPECT_EQ(error(), "opened " + of_python);
  const std::string of_venv =
      make("venv/lib/python3.11/site-packages/nvidia/small/lib/libsmall_of_tests.so.2", true);
  EXPECT_EQ(error(), "opened " + of_venv);
  set("CUDA_PATH", (root_ / "cuda").string());
  const std::string of_cuda = make("cuda/lib/libsmall_of_tests.so.2", true);
  EXPECT_EQ(error(), "opened " + of_cuda);
  // One that cannot be opened is passed over.
  make("cuda/lib64/libsmall_of_tests.so.2", false);
  EXPECT_EQ(error(), "opened " + of_cuda);
}

TEST_F(DynamicLibraryTest, AnErrorNamesEveryPlaceAndWhatWasThere) {
  set("CUDA_HOME", (root_ / "cuda").string());
  make("cuda/lib64/libsmall_of_tests.so.2", false);
  make("bin/python3", false);
  fs::create_directories(root_ / "lib/python3.12/site-packages");
  const std::string root = root_.string();
  EXPECT_THAT(
      error(),
      AllOf(StartsWith("Small (libsmall_of_tests.so.2) cannot be opened; looked for it where the "
                       "loader looks (cannot open shared object file: No such file or directory)"),
            HasSubstr(", " + root + "/cuda/lib64 (file too short), " + root +
                      "/cuda/lib (not there), /usr/local/cuda/lib64 (not there), "),
            EndsWith(", " + root +
                     "/lib/python3.12/site-packages/nvidia/small/lib (not there): "
                     "install it, or set ORRERY_SMALL to its path")));
}

}  // namespace
}  // namespace orrery
