// The instructions that bring tiles to the tensor cores, against their definitions.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "tests/gpu/copy_kernels.cuh"
#include "tests/gpu/device.cuh"
#include "tests/gpu/operands.h"
#include "tests/gpu/report.h"

namespace orrery::selftest {

/// Widths of the swizzles, in bytes; 16 is none.
inline constexpr int kWidths[] = {16, 32, 64, 128};

inline uint64_t matrix_differences(bool is_load, bool transposed) {
  std::vector<uint16_t> tile(256);
  for (size_t i = 0; i < tile.size(); ++i) tile[i] = static_cast<uint16_t>(random_bits(9, i));
  std::vector<uint32_t> registers(128);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t halves[2];
      for (uint32_t h = 0; h < 2; ++h) {
        const uint32_t line = lane / 4, place = lane % 4 * 2 + h;
        halves[h] = tile[64 * i + (transposed ? 8 * place + line : 8 * line + place)];
      }
      registers[4 * lane + i] = halves[0] | halves[1] << 16;
    }
  uint64_t differing = 0;
  if (is_load) {
    const DeviceArray<uint16_t> in(tile);
    const DeviceArray<uint32_t> out(128);
    (transposed ? ldmatrix_kernel<true> : ldmatrix_kernel<false>)<<<1, 32>>>(in.data(), out.data());
    finish("ldmatrix");
    const auto actual = out.host();
    for (size_t i = 0; i < actual.size(); ++i) differing += actual[i] != registers[i];
  } else {
    const DeviceArray<uint32_t> in(registers);
    const DeviceArray<uint16_t> out(256);
    (transposed ? stmatrix_kernel<true> : stmatrix_kernel<false>)<<<1, 32>>>(in.data(), out.data());
    finish("stmatrix");
    const auto actual = out.host();
    for (size_t i = 0; i < actual.size(); ++i) differing += actual[i] != tile[i];
  }
  return differing;
}

inline uint64_t cp_async_differences() {
  std::vector<uint8_t> bytes(512);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i % 251 + 1);
  const DeviceArray<uint8_t> in(bytes), out(512);
  cp_async_kernel<<<1, 32>>>(in.data(), out.data());
  finish("cp.async");
  const auto actual = out.host();
  uint64_t differing = 0;
  for (size_t i = 0; i < actual.size(); ++i)
    differing += actual[i] != (i % 16 < i / 16 % 17 ? bytes[i] : 0);
  return differing;
}

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                 const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                 const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/// Boxes of 64 rows and `width` bytes of a tensor of 200 x 136 numbers, some of them
/// partly outside, where zeros belong; against the layout of a K-major tile.
inline uint64_t tma_differences(int width) {
  constexpr int kRows = 200, kColumns = 136;
  void* symbol = nullptr;
  cudaDriverEntryPointQueryResult found{};
  require(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                           cudaEnableDefault, &found),
          "cuTensorMapEncodeTiled");
  std::vector<uint16_t> tensor(size_t{kRows} * kColumns);
  for (size_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<uint16_t>(random_bits(3, i));
  const DeviceArray<uint16_t> in(tensor);
  const int bytes = kBoxRows * width;
  const DeviceArray<uint8_t> out(bytes);
  CUtensorMap map;
  const cuuint64_t sizes[] = {kColumns, kRows}, pitch[] = {kColumns * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(width / 2), kBoxRows}, step[] = {1, 1};
  const CUtensorMapSwizzle swizzle = width == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : width == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                     : width == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                   : CU_TENSOR_MAP_SWIZZLE_NONE;
  const CUresult made = reinterpret_cast<EncodeTiled>(symbol)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, in.data(), sizes, pitch, box, step,
      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (made != CUDA_SUCCESS) {
    Report::note("cuTensorMapEncodeTiled: error " + std::to_string(made));
    return static_cast<uint64_t>(bytes);
  }
  const TileLayout tile{Major::kK, width, kBoxRows, width / 2};
  uint64_t differing = 0;
  for (const int y : {0, 64, 150, -3})
    for (const int x : {0, width / 2, 128, -8}) {
      tma_kernel<<<1, 128>>>(map, x, y, bytes, out.data());
      finish("TMA");
      const auto actual = out.host();
      for (int row = 0; row < kBoxRows; ++row)
        for (int column = 0; column < width / 2; ++column) {
          const bool inside =
              y + row >= 0 && y + row < kRows && x + column >= 0 && x + column < kColumns;
          const uint16_t expected =
              inside ? tensor[static_cast<size_t>((y + row) * kColumns + x + column)] : 0;
          uint16_t value;
          std::memcpy(&value, &actual[static_cast<size_t>(tile_offset(tile, row, column))], 2);
          differing += value != expected;
        }
    }
  return differing;
}

inline void check_copies(Report& report) {
  report.heading("What brings tiles to the tensor cores");
  report.row("ldmatrix.x4", 128, matrix_differences(true, false));
  report.row("ldmatrix.x4.trans", 128, matrix_differences(true, true));
  report.row("stmatrix.x4", 256, matrix_differences(false, false));
  report.row("stmatrix.x4.trans", 256, matrix_differences(false, true));
  report.row("cp.async, 0 to 16 of 16 bytes, the rest zero", 512, cp_async_differences());
  for (const int width : kWidths)
    report.row("TMA boxes of 64 rows, swizzle " + std::to_string(width == 16 ? 0 : width),
               static_cast<uint64_t>(16 * kBoxRows * width / 2), tma_differences(width));
}

}  // namespace orrery::selftest
