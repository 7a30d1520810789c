#include "storage/checkpoint.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/sha256.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

/// Whether a file that holds this of a module has something of the slices.
bool holds_any(const StoredModule& module, const HeldTensors& held,
               std::span<const models::HeldSlice> wanted) {
  return std::any_of(wanted.begin(), wanted.end(), [&](const models::HeldSlice& w) {
    const auto slices = held.find(module.tensors[w.tensor].name);
    return slices != held.end() &&
           std::any_of(slices->second.begin(), slices->second.end(), [&](const Extent& e) {
             return std::max(w.elements.begin, e.begin) < std::min(w.elements.end, e.end);
           });
  });
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& folder, Verify verify, const PieceRunner& run_piece)
    : folder_(folder), manifest_(read_manifest(folder)), table_(manifest_.config) {
  verified_.assign(manifest_.rank_files.size(), false);
  for (const CheckpointFileEntry& entry : manifest_.tokenizer) verify_file(folder_, entry);
  if (verify == Verify::kOnRead) return;
  for (size_t i = 0; i < manifest_.rank_files.size(); ++i) {
    const CheckpointFileEntry& file = manifest_.rank_files[i];
    verify_file(folder_, file, run_piece);
    check_rank_file(folder_ / file.name, manifest_.modules, file.slices);
    verified_[i] = true;
  }
}

int64_t Checkpoint::bytes() const {
  int64_t total = 0;
  for (const CheckpointFileEntry& entry : manifest_.rank_files) total += entry.bytes;
  for (const CheckpointFileEntry& entry : manifest_.tokenizer) total += entry.bytes;
  return total;
}

fs::path Checkpoint::tokenizer_folder() const {
  return manifest_.tokenizer.empty() ? fs::path() : folder_ / kTokenizerFolder;
}

const StoredModule& Checkpoint::module(std::string_view name) const {
  return find_module(manifest_.modules, name, folder_.string());
}

void Checkpoint::read(std::string_view module_name, std::span<const models::HeldSlice> wanted,
                      std::span<float> weights, std::span<float> adam_m,
                      std::span<float> adam_v) const {
  const StoredModule& module = this->module(module_name);
  const std::array<std::span<float>, 3> out = {weights, adam_m, adam_v};
  for (int64_t kind = 0; kind < std::ssize(kKinds); ++kind) {
    const Span<float> values = out[kind];
    if (values.empty()) continue;
    ORRERY_CHECK(kind < module.kinds(), "{} of {}, which is not trainable", kKinds[kind],
                 module.name);
    int64_t filled = 0;
    for (const models::HeldSlice& w : wanted) {
      ORRERY_CHECK(0 <= w.tensor && w.tensor < std::ssize(module.tensors), "tensor {} of {}",
                   w.tensor, module.name);
      ORRERY_CHECK(0 <= w.elements.begin && w.elements.begin <= w.elements.end &&
                       w.elements.end <= module.tensors[w.tensor].size && filled <= w.at &&
                       w.at + w.elements.size() <= values.size(),
                   "[{}, {}) of {} elements, at {} of {}, {} filled", w.elements.begin,
                   w.elements.end, module.tensors[w.tensor].size, w.at, values.size(), filled);
      std::fill(values.begin() + filled, values.begin() + w.at, 0.0f);
      filled = w.at + w.elements.size();
    }
    std::fill(values.begin() + filled, values.end(), 0.0f);
  }
  for (size_t i = 0; i < manifest_.rank_files.size(); ++i) {
    const CheckpointFileEntry& file = manifest_.rank_files[i];
    const auto held = file.slices.find(module.name);
    if (held == file.slices.end() || !holds_any(module, held->second, wanted)) continue;
    if (!verified_[i]) {
      verify_file(folder_, file);
      verified_[i] = true;
    }
    read_rank_file(folder_ / file.name, module, held->second, wanted, out);
  }
}

std::string checkpoint_hash(int64_t step, const StoredModule& module, const ReadElements& read) {
  constexpr int64_t kChunk = int64_t{1} << 22;
  Sha256 sha;
  sha.update("orrery checkpoint 1\n");
  if (module.name != models::kPolicy.name) sha.update(fmt::format("module {}\n", module.name));
  sha.update(fmt::format("step {}\n", step));
  for (int64_t kind = 0; kind < module.kinds(); ++kind) {
    for (int64_t tensor = 0; tensor < std::ssize(module.tensors); ++tensor) {
      const StoredTensor& t = module.tensors[tensor];
      sha.update(fmt::format("{} {} [{}]\n", kKinds[kind], t.name, fmt::join(t.shape, ", ")));
      for (int64_t at = 0; at < t.size; at += kChunk) {
        const Extent elements{at, std::min(t.size, at + kChunk)};
        sha.update(std::as_bytes(read(kind, tensor, elements)));
      }
    }
  }
  return sha.hex();
}

std::string checkpoint_hash(const Checkpoint& checkpoint, std::string_view module_name) {
  const StoredModule& module = checkpoint.module(module_name);
  std::vector<float> chunk;
  return checkpoint_hash(checkpoint.info().step, module,
                         [&](int64_t kind, int64_t tensor, const Extent& elements) {
                           const models::HeldSlice wanted{tensor, elements, 0};
                           chunk.resize(elements.size());
                           std::array<std::span<float>, 3> out;
                           out[kind] = chunk;
                           checkpoint.read(module.name, {&wanted, 1}, out[0], out[1], out[2]);
                           return std::span<const float>(chunk);
                         });
}

std::string checkpoint_hash(int64_t step, const models::ParameterTable& table,
                            std::span<const float> weights, std::span<const float> adam_m,
                            std::span<const float> adam_v) {
  const std::array<Span<const float>, 3> buffers = {weights, adam_m, adam_v};
  return checkpoint_hash(
      step, stored_module(table), [&](int64_t kind, int64_t tensor, const Extent& elements) {
        const models::Parameter& p = table.parameters()[tensor];
        return std::span<const float>(elements_of(table.values(buffers[kind], p), elements));
      });
}

}  // namespace orrery::storage
