#include "storage/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <optional>

#include "core/durable_file.h"
#include "core/error.h"
#include "core/json_read.h"
#include "core/lfs_pointer.h"

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little-endian and is read in place");

namespace orrery::storage {
namespace {

using nlohmann::json;

constexpr size_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxRank = 16;
constexpr int64_t kMaxFileElements = int64_t{1} << 48;
constexpr int64_t kChunkElements = int64_t{1} << 18;

/// The bits of an element, or nothing for a dtype that is not known here. A tensor of
/// such a type cannot be read, and its size is not checked.
std::optional<int64_t> dtype_bits(const std::string& dtype) {
  static constexpr std::pair<std::string_view, int64_t> kBits[] = {
      {"F64", 64}, {"I64", 64}, {"U64", 64},    {"F32", 32},    {"I32", 32},
      {"U32", 32}, {"F16", 16}, {"BF16", 16},   {"I16", 16},    {"U16", 16},
      {"I8", 8},   {"U8", 8},   {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"BOOL", 8}};
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) return bits;
  }
  return std::nullopt;
}

SafetensorsTensor parse_tensor(const std::string& name, const json& entry, const std::string& where,
                               int64_t data_bytes) {
  const JsonObject object(entry, fmt::format("{}: tensor {}", where, json_excerpt(json(name))));
  object.only_keys({"dtype", "shape", "data_offsets"});
  SafetensorsTensor tensor;
  tensor.name = name;
  tensor.dtype = object.text("dtype");
  const json* shape = object.find("shape");
  if (shape == nullptr || !shape->is_array() || shape->size() > kMaxRank) {
    object.reject("shape", fmt::format("a list of at most {} sizes is needed", kMaxRank));
  }
  tensor.size = 1;
  for (const json& dim : *shape) {
    const auto size = json_integer(dim);
    if (!size || *size < 0 || *size > kMaxFileElements ||
        (tensor.size > 0 && *size > kMaxFileElements / tensor.size)) {
      fail("{}: shape holds {}, which is out of range", object.where(), json_excerpt(dim));
    }
    tensor.shape.push_back(*size);
    tensor.size *= *size;
  }
  const json* offsets = object.find("data_offsets");
  std::optional<int64_t> begin, end;
  if (offsets != nullptr && offsets->is_array() && offsets->size() == 2) {
    begin = json_integer((*offsets)[0]);
    end = json_integer((*offsets)[1]);
  }
  if (!begin || !end || *begin < 0 || *end < *begin) {
    object.reject("data_offsets", "two rising byte positions are needed");
  }
  tensor.begin = *begin;
  tensor.end = *end;
  if (tensor.end > data_bytes) {
    fail("{}: its bytes {} to {} are outside the file's {} bytes of data; is the file truncated?",
         object.where(), tensor.begin, tensor.end, data_bytes);
  }
  const auto bits = dtype_bits(tensor.dtype);
  if (bits && tensor.size * *bits != (tensor.end - tensor.begin) * 8) {
    fail("{}: {} bytes do not hold {} elements of {}", object.where(), tensor.end - tensor.begin,
         tensor.size, tensor.dtype);
  }
  return tensor;
}

std::string_view safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    default:
      fail("weights cannot be saved as {}; supported are f32, bf16 and f16", dtype_name(dtype));
  }
}

/// Appends `values` rounded to a 16-bit type, a chunk at a time.
template <uint16_t (*Round)(float), uint16_t kInfinity>
void append_rounded(DurableFile& file, const SafetensorsOutput& tensor, std::string_view dtype) {
  const Span<const float> values = tensor.values;
  Array<uint16_t> chunk;
  for (int64_t at = 0; at < values.size(); at += chunk.size()) {
    chunk.resize(std::min(kChunkElements, values.size() - at));
    for (int64_t i = 0; i < chunk.size(); ++i) {
      const float value = values[at + i];
      chunk[i] = Round(value);
      if ((chunk[i] & 0x7FFFu) == kInfinity && std::isfinite(value)) {
        fail("{}: {}[{}] is {}, which is too large for {}; save as f32", file.path().string(),
             tensor.name, at + i, value, dtype);
      }
    }
    file.append(as_bytes(Span(chunk)));
  }
}

/// Each element of `out` becomes a 16-bit value of `bytes`, as a float.
template <class Widen>
void widen(const std::byte* bytes, Span<float> out, Widen&& to_float) {
  constexpr int64_t kBlock = 256;  // a loop of constant length is vectorised
  uint16_t block[kBlock];
  int64_t at = 0;
  for (; at + kBlock <= out.size(); at += kBlock) {
    std::memcpy(block, bytes + 2 * at, sizeof block);
    float* to = out.data() + at;
    for (int64_t i = 0; i < kBlock; ++i) to[i] = to_float(block[i]);
  }
  std::memcpy(block, bytes + 2 * at, 2 * (out.size() - at));
  for (int64_t i = 0; at < out.size(); ++i, ++at) out[at] = to_float(block[i]);
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::string where = path.string();
  const auto bytes = file_.bytes();
  refuse_lfs_pointer({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes))
    fail("{}: {} bytes are too few for a safetensors file", where, bytes.size());
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof(header_bytes)) {
    fail("{}: its header claims {} bytes, the file has {}; it is truncated or no safetensors file",
         where, header_bytes, bytes.size());
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes),
                              header_bytes);
  data_ = bytes.subspan(sizeof(header_bytes) + header_bytes);

  constexpr int kHeaderDepth = 4;
  const json header = parse_json_strictly(text, where, kHeaderDepth);
  if (!header.is_object()) fail("{}: its header is not a JSON object", where);
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_tensor(name, entry, where, data_.size()));
      continue;
    }
    if (!entry.is_object()) fail("{}: __metadata__ is not a JSON object", where);
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) fail("{}: __metadata__ may hold strings only", where);
      metadata_[key] = value.get<std::string>();
    }
  }

  std::sort(tensors_.begin(), tensors_.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  int64_t cursor = 0;
  for (const SafetensorsTensor& tensor : tensors_) {
    if (tensor.begin != cursor) {
      fail("{}: tensor {} begins at byte {} where {} was expected: bytes {}", where, tensor.name,
           tensor.begin, cursor,
           tensor.begin < cursor ? "belong to two tensors" : "belong to none");
    }
    cursor = tensor.end;
  }
  if (cursor != data_.size()) {
    fail("{}: its tensors end at byte {}, its data at {}: bytes belong to none", where, cursor,
         data_.size());
  }
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

void SafetensorsFile::read_f32(const SafetensorsTensor& tensor, int64_t begin,
                               Span<float> out) const {
  ORRERY_CHECK(begin >= 0 && out.size() <= tensor.size - begin, "{} elements from {} of {}",
               out.size(), begin, tensor.size);
  const std::byte* bytes = data_.data() + tensor.begin;  // not necessarily aligned
  if (tensor.dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes + 4 * begin, out.size_bytes());
  } else if (tensor.dtype == "BF16") {
    widen(bytes + 2 * begin, out, [](uint16_t bits) { return bf16_to_f32(bits); });
  } else if (tensor.dtype == "F16") {
    widen(bytes + 2 * begin, out, [](uint16_t bits) { return f16_to_f32(bits); });
  } else {
    fail("{}: tensor {} has dtype {}; supported are F32, BF16 and F16", path_.string(), tensor.name,
         tensor.dtype);
  }
}

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  constexpr uint32_t kInf32 = 0x7F800000u, kInf16 = 0x7C00u,
                     kSmallestNormal = 0x38800000u;  // 2^-14
  if (magnitude > kInf32) return sign | 0x7E00u;
  if (magnitude < kSmallestNormal) {
    // Adding 0.5 to |x| leaves |x| in units of 2^-24 in the low bits of the sum; the
    // addition rounds it to nearest even.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | (std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0.5f));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  const uint32_t half = (rounded >> 13) - (112u << 10);
  return sign | std::min(half, kInf16);
}

void write_safetensors(const std::filesystem::path& path,
                       std::span<const SafetensorsOutput> tensors, DType dtype,
                       const std::map<std::string, std::string>& metadata) {
  const std::string_view name = safetensors_dtype(dtype);
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t cursor = 0;
  for (const SafetensorsOutput& tensor : tensors) {
    int64_t size = 1;
    for (const int64_t d : tensor.shape) size *= d;
    ORRERY_CHECK(size == std::ssize(tensor.values) && !header.contains(tensor.name),
                 "tensor {} of shape {} with {} values", tensor.name, shape_text(tensor.shape),
                 tensor.values.size());
    const size_t bytes = tensor.values.size() * dtype_bytes(dtype);
    header[tensor.name] = {
        {"dtype", name}, {"shape", tensor.shape}, {"data_offsets", {cursor, cursor + bytes}}};
    cursor += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // aligns the data

  DurableFile file(path);
  const uint64_t header_bytes = text.size();
  file.append(std::as_bytes(std::span(&header_bytes, 1)));
  file.append(std::as_bytes(std::span(text)));
  for (const SafetensorsOutput& tensor : tensors) {
    if (dtype == DType::kF32) {
      file.append(std::as_bytes(tensor.values));
    } else if (dtype == DType::kBF16) {
      append_rounded<f32_to_bf16, 0x7F80>(file, tensor, name);
    } else {
      append_rounded<f32_to_f16, 0x7C00>(file, tensor, name);
    }
  }
  file.commit();
}

}  // namespace orrery::storage
