// A folder that appears whole: it is written under a temporary name beside its own, and
// published by a rename that replaces nothing.
#pragma once

#include <filesystem>

namespace orrery::storage {

/// Not thread-safe. Processes that write to one name at the same time have temporaries
/// of their own, and the first to publish wins.
class NewFolder {
 public:
  /// Makes the empty temporary folder, PATH.tmp-new-N for the first N that is free, and
  /// the folders above it. Error when `path` exists.
  explicit NewFolder(const std::filesystem::path& path);
  ~NewFolder();  ///< removes the temporary, unless it was published
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }

  /// Renames the temporary to `path`, durably; what it holds is durable already. Error
  /// when something has that name by now.
  void publish();

 private:
  std::filesystem::path path_, temporary_;
};

}  // namespace orrery::storage
