// The other files of a checkpoint, as the manifest describes them.
#include <utility>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/sha256.h"
#include "storage/manifest.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

/// Describes a file as a failing disk would give it.
CheckpointFileEntry describe_damaged(const fs::path& folder, const std::string& name,
                                     FaultAction fault) {
  const MappedFile file(folder / name);
  std::vector<std::byte> bytes(file.bytes().begin(), file.bytes().end());
  if (fault == FaultAction::kShortRead) bytes.resize(bytes.size() / 2);
  if (fault == FaultAction::kCorrupt && !bytes.empty()) bytes[bytes.size() / 2] ^= std::byte{1};
  return {name, std::ssize(bytes), sha256_hex(bytes), {}};
}

}  // namespace

std::string rank_file_name(int64_t rank, int64_t ranks) {
  return fmt::format("rank_{:04}_of_{:04}.h5", rank, ranks);
}

CheckpointFileEntry describe_file(const fs::path& folder, const std::string& name,
                                  const PieceRunner& run_piece) {
  constexpr size_t kPiece = size_t{1} << 19;
  const MappedFile file(folder / name);
  Sha256 sha;
  for (auto rest = file.bytes(); !rest.empty();) {
    const auto piece = rest.first(std::min(kPiece, rest.size()));
    run_piece([&] { sha.update(piece); });
    rest = rest.subspan(piece.size());
  }
  return {name, std::ssize(file.bytes()), sha.hex(), {}};
}

void verify_file(const fs::path& folder, const CheckpointFileEntry& entry,
                 const PieceRunner& run_piece) {
  const FaultAction fault = fault_point(FaultPoint::kCheckpointRead);
  const CheckpointFileEntry found = fault == FaultAction::kNone
                                        ? describe_file(folder, entry.name, run_piece)
                                        : describe_damaged(folder, entry.name, fault);
  if (found.bytes != entry.bytes) {
    fail("{}: {} bytes, its manifest says {}", (folder / entry.name).string(), found.bytes,
         entry.bytes);
  }
  if (found.sha256 != entry.sha256) {
    fail("{}: damaged: its SHA-256 is {}..., its manifest says {}...",
         (folder / entry.name).string(), found.sha256.substr(0, 12), entry.sha256.substr(0, 12));
  }
}

}  // namespace orrery::storage
