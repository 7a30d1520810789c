#include "core/lfs_pointer.h"

#include "core/error.h"
#include "core/file.h"

namespace orrery {

void refuse_lfs_pointer(std::string_view content, const std::filesystem::path& path) {
  constexpr std::string_view kBegins = "version https://git-lfs.github.com/spec/";
  if (!content.starts_with(kBegins)) return;
  const std::filesystem::path folder = path.parent_path();
  fail(
      "{} is a Git LFS pointer, not the file itself: "
      "install git-lfs and run `git lfs pull` in {}, or download the file",
      path.string(), folder.empty() ? "its folder" : folder.string());
}

std::string read_model_file(const std::filesystem::path& path) {
  std::string text = read_file(path);
  refuse_lfs_pointer(text, path);
  return text;
}

}  // namespace orrery
