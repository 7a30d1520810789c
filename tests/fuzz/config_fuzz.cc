// Input: a YAML config, then perhaps, after a line "===", key=value overrides, one a
// line.
#include "config/config.h"
#include "experiments/config_check.h"

#include <google/protobuf/util/message_differencer.h>

#include <sstream>

#include "tests/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  static const fuzzing::Scratch scratch;
  const std::vector<std::string> parts = fuzzing::parts({data, size});
  std::vector<std::string> overrides;
  if (parts.size() > 1) {
    std::istringstream lines(parts[1]);
    for (std::string line; std::getline(lines, line);) overrides.push_back(line);
  }
  const std::filesystem::path path = scratch.write("config.yaml", parts[0]);
  proto::Config config;
  if (!fuzzing::accepted([&] { config = config::load_config(path, overrides); })) return 0;
  for (const int ranks : {1, 2, 6}) {
    fuzzing::accepted([&] {
      experiments::check_config(config, ranks);
      experiments::describe_batch(config, ranks);
    });
  }
  const std::filesystem::path resolved =
      scratch.write("resolved.yaml", config::config_to_yaml(config));
  proto::Config again;
  if (!fuzzing::accepted([&] { again = config::load_config(resolved, {}); }) ||
      !google::protobuf::util::MessageDifferencer::Equals(config, again)) {
    fuzzing::broken("a resolved config loads again, equal");
  }
  return 0;
}
