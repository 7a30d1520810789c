// The safetensors container: an 8-byte little-endian header length, a JSON header (name
// -> dtype, shape, byte range), then the tensors' bytes, row-major and little-endian.
// docs/formats.md states the subset.
//
// A reader trusts nothing: lengths, ranges, shapes and names are checked against the
// file before a byte is used, so a broken or hostile file gives an Error naming the
// file, the tensor and the reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/dtype.h"
#include "core/file.h"
#include "core/span.h"

namespace orrery::storage {

/// One tensor of a file, as its header states it and after checks.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;  ///< as written: "F32", "BF16", "F16", or one that read_f32 rejects
  std::vector<int64_t> shape;
  int64_t size = 0;            ///< elements
  int64_t begin = 0, end = 0;  ///< bytes, from the start of the data
};

/// A mapped file. Const calls are thread-safe. The file must not be cut while it is
/// open.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// In the order of their bytes.
  std::span<const SafetensorsTensor> tensors() const { return tensors_; }
  const SafetensorsTensor* find(std::string_view name) const;  ///< null when there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// out = values [begin, begin + out.size()) as float32, exact. Error when the dtype
  /// is none of F32, BF16, F16. Thread-safe.
  void read_f32(const SafetensorsTensor& tensor, int64_t begin, Span<float> out) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  Span<const std::byte> data_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

/// A shape in messages: [2, 3].
std::string shape_text(const std::vector<int64_t>& shape);

/// A float32 tensor to be written.
struct SafetensorsOutput {
  std::string name;
  std::vector<int64_t> shape;
  std::span<const float> values;
};

/// Writes a file atomically (temporary, fsync, rename), rounding to `dtype` (kF32,
/// kBF16, kF16) to nearest even. Error when a finite value has no finite rounding, when
/// a write fails (the old file, if any, stays).
void write_safetensors(const std::filesystem::path& path,
                       std::span<const SafetensorsOutput> tensors, DType dtype,
                       const std::map<std::string, std::string>& metadata);

/// float32 -> f16 bits, round to nearest even; overflow gives infinity, NaN stays NaN.
uint16_t f32_to_f16(float value);

}  // namespace orrery::storage
