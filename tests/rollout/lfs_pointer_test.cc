#include "core/lfs_pointer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "models/config.h"
#include "storage/safetensors.h"
#include "tests/support/scratch.h"
#include "text/tokenizer.h"

namespace orrery::rollout {
namespace {

constexpr const char* kPointer =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

template <class Work>
std::string error_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(LfsPointer, IsCalledOneByEveryReader) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path& folder = scratch.path();
  std::filesystem::create_directories(folder);
  const auto put = [&](const char* name) { write_file_atomic(folder / name, kPointer); };
  const auto expect = [&](const std::string& error, const char* name) {
    EXPECT_THAT(error, testing::HasSubstr((folder / name).string() + " is a Git LFS pointer"));
    EXPECT_THAT(error, testing::HasSubstr("`git lfs pull` in " + folder.string()));
  };
  put("config.json");
  expect(error_of([&] { (void)models::load_model_config(folder); }), "config.json");
  put("tokenizer.json");
  expect(error_of([&] { (void)text::Tokenizer::load(folder); }), "tokenizer.json");
  put("model.safetensors");
  expect(error_of([&] { (void)storage::SafetensorsFile(folder / "model.safetensors"); }),
         "model.safetensors");
  put("chat_template.jinja");
  std::filesystem::copy_file(
      std::filesystem::path(ORRERY_SOURCE_DIR) / "experiments/quickstart_model/tokenizer.json",
      folder / "tokenizer.json", std::filesystem::copy_options::overwrite_existing);
  expect(error_of([&] { (void)text::Tokenizer::load(folder); }), "chat_template.jinja");
  put("tokenizer_config.json");
  expect(error_of([&] { (void)text::Tokenizer::load(folder); }), "tokenizer_config.json");
}

TEST(LfsPointer, AFileThatOnlyMentionsOneIsNone) {
  EXPECT_NO_THROW(
      refuse_lfs_pointer("{\"x\": \"version https://git-lfs.github.com/spec/v1\"}", "a"));
  EXPECT_NO_THROW(refuse_lfs_pointer("", "a"));
  EXPECT_THAT(error_of([] { refuse_lfs_pointer(kPointer, "model.safetensors"); }),
              testing::HasSubstr("in its folder"));
}

}  // namespace
}  // namespace orrery::rollout
