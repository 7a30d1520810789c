// Input: a safetensors file, or, where it begins with '{', its header, a newline and
// its data; the length of the header is then put before it, so that mutations reach
// what lies behind.
#include "storage/safetensors.h"

#include <cstring>

#include "tests/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  std::string file(reinterpret_cast<const char*>(data), size);
  if (file.starts_with('{')) {
    const size_t newline = std::min(file.find('\n'), file.size());
    const uint64_t header_bytes = newline;
    std::string length(sizeof(header_bytes), '\0');
    std::memcpy(length.data(), &header_bytes, sizeof(header_bytes));
    if (newline < file.size()) file.erase(newline, 1);
    file.insert(0, length);
  }
  const std::filesystem::path path = scratch.write("model.safetensors", file);
  fuzzing::accepted([&] {
    const storage::SafetensorsFile safetensors(path);
    for (const storage::SafetensorsTensor& tensor : safetensors.tensors()) {
      if (safetensors.find(tensor.name) != &tensor)
        fuzzing::broken("a tensor is found by its name");
      if (tensor.size > int64_t{1} << 20) continue;
      std::vector<float> values(static_cast<size_t>(tensor.size));
      fuzzing::accepted([&] { safetensors.read_f32(tensor, 0, values); });
    }
  });
  return 0;
}
