#include "config/config_external.h"

#include "core/ascii.h"
#include "core/error.h"

namespace orrery::config {

std::string env_name(const proto::DataSection& data) {
  return to_lower(proto::DataSection::Env_Name(data.env()));
}

void check_external(const proto::DataSection& data) {
  const proto::ExternalSection& external = data.external();
  const proto::ExternalSection& usual = proto::ExternalSection::default_instance();
  if (data.env() == proto::DataSection::EXTERNAL) {
    if (external.command().find_first_not_of(" \t\r\n") == std::string::npos) {
      fail_usage(
          "data.env is external but data.external.command is not set: "
          "give the command that rewards responses, such as \"python3 examples/reward.py\"");
    }
    if (external.command().find('\0') != std::string::npos)
      fail_usage("data.external.command has a NUL character inside, which no command can have");
    return;
  }
  const char* key = external.command() != usual.command()                   ? "command"
                    : external.workers() != usual.workers()                 ? "workers"
                    : external.timeout_s() != usual.timeout_s()             ? "timeout_s"
                    : external.start_timeout_s() != usual.start_timeout_s() ? "start_timeout_s"
                    : external.retries() != usual.retries()                 ? "retries"
                                                                            : nullptr;
  if (key != nullptr) {
    fail_usage(
        "data.external.{} is set but data.env is {}, so that it would be ignored: "
        "set data.env to external, or remove it",
        key, env_name(data));
  }
}

}  // namespace orrery::config
