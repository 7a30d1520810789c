// Real models, tokenizers and data used by tests when they are there; such tests skip
// without them.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace orrery::testing_support {

/// Folder of the shared assets: $ORRERY_ASSETS, else ../shared/assets beside the source
/// tree.
inline std::filesystem::path assets() {
  if (const char* path = std::getenv("ORRERY_ASSETS")) return path;
  return std::filesystem::path(ORRERY_SOURCE_DIR) / ".." / "shared" / "assets";
}

}  // namespace orrery::testing_support

/// First line of a test that needs assets()/relative.
#define ORRERY_NEEDS_ASSET(relative)                                                      \
  if (!std::filesystem::exists(::orrery::testing_support::assets() / (relative)))         \
  GTEST_SKIP() << "needs " << (::orrery::testing_support::assets() / (relative)).string() \
               << ", which is absent"
