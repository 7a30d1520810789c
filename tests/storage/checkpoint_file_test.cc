// Files of several blocks: written in pieces, whoever does the pieces.
#include "storage/checkpoint_file.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/file.h"
#include "core/sha256.h"
#include "tests/support/scratch.h"

namespace orrery::storage {
namespace {

TEST(CheckpointFile, TheDigestIsOfWhatIsOnTheDiskWhoeverWritesThePieces) {
  const testing_support::ScratchFolder scratch;
  constexpr int64_t kCount = (20 << 20) / sizeof(float) + 123;  // three blocks, the last one odd
  std::vector<float> values(static_cast<size_t>(kCount));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 9973) * 0.5f;
  const std::vector<Extent> extents = {{5, 5 + kCount}};
  const CheckpointSlice slice{extents, values, values, values};

  const SliceFile plain = write_slice_file(scratch.path() / "plain.h5", kCount + 10, slice);
  LowPriorityWorker worker;
  int pieces = 0;
  const SliceFile by_worker =
      write_slice_file(scratch.path() / "quiet.h5", kCount + 10, slice, [&](const auto& piece) {
        worker.run(piece);
        worker.set_urgent(++pieces > 60);  // somebody begins to wait in the middle
      });
  EXPECT_GE(pieces, 120);
  EXPECT_EQ(by_worker.sha256, plain.sha256);
  EXPECT_EQ(by_worker.bytes, plain.bytes);
  for (const char* name : {"plain.h5", "quiet.h5"}) {
    const std::string bytes = read_file(scratch.path() / name);
    EXPECT_EQ(std::ssize(bytes), plain.bytes);
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(bytes))), plain.sha256) << name;
    std::vector<float> read(values.size());
    read_slice_file(scratch.path() / name, extents, kCount + 10, extents[0], {read, {}, {}});
    EXPECT_EQ(read, values);
  }
}

TEST(CheckpointFile, AnErrorOfAPieceEndsTheFile) {
  const testing_support::ScratchFolder scratch;
  std::vector<float> values(1 << 20);
  const std::vector<Extent> extents = {{0, 1 << 20}};
  int pieces = 0;
  EXPECT_THROW(write_slice_file(scratch.path() / "f.h5", 1 << 20, {extents, values, values, values},
                                [&](const auto& piece) {
                                  if (++pieces == 3) fail("the disk is gone");
                                  piece();
                                }),
               Error);
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "f.h5"));
}

}  // namespace
}  // namespace orrery::storage
