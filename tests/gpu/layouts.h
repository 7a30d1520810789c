// Where an operand tile of wgmma lies in shared memory, and the descriptor that says so
// (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout").
//
// A tile is rows x k bf16 numbers: rows of A, or columns of B. With swizzle width w
// (bytes; 16 is "no swizzle"), addresses counted from a multiple of 1024:
//   K-major:   a row's piece of w/2 numbers along k is contiguous; rows follow at a
//              distance of w; the next piece along k follows after all rows.
//   MN-major:  w/2 numbers along the rows are contiguous; k follows at a distance of w;
//              the next w/2 rows follow after all of k.
//   w = 16:    core matrices of 8 x 16 bytes, contiguous.
//   w > 16:    bits 4.. of the address are xored with bits 7.. (1, 2 or 3 bits for w =
//              32, 64, 128).
#pragma once

#include <cstdint>

#include "core/device_fn.h"

namespace orrery::selftest {

enum class Major { kK, kMn };

struct TileLayout {
  Major major;
  int width;  ///< of the swizzle, in bytes: 16, 32, 64, 128
  int rows;   ///< a multiple of 64 where MN-major, of 8 where K-major
  int k;      ///< a multiple of 16, and of width/2 where K-major
};

ORRERY_DEVICE_FN inline int swizzled(int offset, int width) {
  const int mask = width == 128 ? 7 : width == 64 ? 3 : width == 32 ? 1 : 0;
  return offset ^ (offset >> 7 & mask) << 4;
}

/// Byte offset of element (row, k).
ORRERY_DEVICE_FN inline int tile_offset(const TileLayout& tile, int row, int k) {
  const int piece = tile.width / 2;
  if (tile.major == Major::kK)
    return swizzled((k / piece * tile.rows + row) * tile.width + k % piece * 2, tile.width);
  return swizzled((row / piece * tile.k + k) * tile.width + row % piece * 2, tile.width);
}

/// The descriptor of the 16 wide step that begins at k, of a tile at this address of
/// shared memory.
ORRERY_DEVICE_FN inline uint64_t step_descriptor(const TileLayout& tile, uint32_t address, int k) {
  const int eight = 8 * tile.width;  // bytes between groups of eight lines
  int start, leading, stride;
  if (tile.major == Major::kK) {
    const int piece = tile.width / 2;
    start = k / piece * tile.rows * tile.width + k % piece * 2;
    // With a swizzle the step lies within its line, and the leading distance is unused.
    leading = tile.width == 16 ? tile.rows * tile.width : 16;
    stride = eight;
  } else {
    start = k * tile.width;
    const int across = tile.k * tile.width;  // to the next width/2 rows
    leading = tile.width == 16 ? eight : across;
    stride = tile.width == 16 ? across : eight;
  }
  const uint64_t mode = tile.width == 128 ? 1 : tile.width == 64 ? 2 : tile.width == 32 ? 3 : 0;
  return ((address + static_cast<uint32_t>(start)) & 0x3ffffu) >> 4 |
         static_cast<uint64_t>(leading >> 4) << 16 | static_cast<uint64_t>(stride >> 4) << 32 |
         mode << 62;
}

}  // namespace orrery::selftest
