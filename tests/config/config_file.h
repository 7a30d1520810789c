// Configs from text, for tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery::config {

/// The one line that `body` is refused with.
template <class Body>
std::string usage_error(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_code(), kExitUsage) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "no error";
}

/// A config from text, as if it were the file f.yaml.
inline proto::Config parse(const std::string& text,
                           const std::vector<std::string>& overrides = {}) {
  proto::Config config;
  ConfigReader reader(config);
  reader.read_yaml(text, "f.yaml");
  for (const std::string& o : overrides) reader.read_override(o);
  fill_defaults(config);
  return config;
}

class ConfigFile : public testing::Test {
 protected:
  ConfigFile() { std::filesystem::create_directories(folder_ / "sub"); }
  std::filesystem::path write(const std::string& text) const {
    std::ofstream(folder_ / "sub" / "c.yaml", std::ios::binary) << text;
    return folder_ / "sub" / "c.yaml";
  }
  proto::Config load(const std::string& text,
                     const std::vector<std::string>& overrides = {}) const {
    return load_config(write(text), overrides);
  }
  const testing_support::ScratchFolder scratch_;
  const std::filesystem::path folder_ = scratch_.path();
};

}  // namespace orrery::config
