#include "storage/new_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "core/error.h"
#include "core/file.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;

/// Renames where nothing is. A file system that cannot promise so refuses the flag; its
/// plain rename still replaces no folder that holds something.
bool rename_to_free_name(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
  std::error_code ignored;
  if (fs::symlink_status(to, ignored).type() != fs::file_type::not_found) {
    errno = EEXIST;
    return false;
  }
  return ::rename(from.c_str(), to.c_str()) == 0;
}

}  // namespace

NewFolder::NewFolder(const fs::path& path) : path_(path) {
  std::error_code error;
  if (fs::exists(path, error)) fail("{} exists; name a new folder", path.string());
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (error) fail("cannot create {}: {}", path.parent_path().string(), error.message());
  for (int n = 1; temporary_.empty(); ++n) {
    const std::string name = fmt::format("{}.tmp-new-{}", path.string(), n);
    if (::mkdir(name.c_str(), 0777) == 0) {
      temporary_ = name;
    } else if (errno != EEXIST) {
      fail("cannot create {}: {}", name, std::strerror(errno));
    }
  }
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void NewFolder::publish() {
  if (!rename_to_free_name(temporary_, path_)) {
    if (errno == EEXIST || errno == ENOTEMPTY)
      fail("{} has come into being meanwhile, and stays as it is", path_.string());
    fail("cannot rename {} to {}: {}", temporary_.string(), path_.string(), std::strerror(errno));
  }
  temporary_.clear();
  sync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

}  // namespace orrery::storage
