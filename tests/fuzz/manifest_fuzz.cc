// Input: the text of a checkpoint's manifest.json. Its digest is made to agree, so that
// its fields are read; beside it lies a rank's file, which is no HDF5, and a tokenizer.
#include "storage/manifest.h"

#include "core/sha256.h"
#include "storage/checkpoint.h"
#include "tests/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  static const bool made = [] {
    std::filesystem::create_directories(scratch.path() / storage::kTokenizerFolder);
    scratch.write(storage::rank_file_name(0, 1), "no HDF5 file\n");
    scratch.write(std::string(storage::kTokenizerFolder) + "/tokenizer.json", "{}\n");
    return true;
  }();
  static_cast<void>(made);
  const std::string text(reinterpret_cast<const char*>(data), size);
  scratch.write(storage::kManifestFile, text);
  scratch.write(
      storage::kManifestHashFile,
      fmt::format("{}  {}\n", sha256_hex(std::as_bytes(std::span(text))), storage::kManifestFile));
  fuzzing::accepted([&] {
    const storage::Checkpoint checkpoint(scratch.path(), storage::Checkpoint::Verify::kOnRead);
    if (checkpoint.module(models::kPolicy.name) != storage::stored_module(checkpoint.table()))
      fuzzing::broken("a manifest has its model's tensors");
    std::vector<float> value(1);
    const models::HeldSlice first{0, {0, 1}, 0};
    const bool read = fuzzing::accepted([&] {
      checkpoint.read(models::kPolicy.name, {&first, 1}, value);
    });
    if (read) fuzzing::broken("a file that is no HDF5 is not read");
  });
  return 0;
}
