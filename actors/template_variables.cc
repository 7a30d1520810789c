#include "actors/template_variables.h"

#include <map>
#include <string>

#include "core/error.h"

namespace orrery::actors {

text::OrderedJson template_variables(const proto::DataSection& data) {
  text::OrderedJson variables = text::OrderedJson::object();
  const std::map<std::string, std::string> sorted(data.chat_template_kwargs().begin(),
                                                  data.chat_template_kwargs().end());
  for (const auto& [name, json] : sorted) {
    variables[name] = text::OrderedJson::parse(json, nullptr, /*allow_exceptions=*/false);
    if (variables[name].is_discarded())
      fail_usage("data.chat_template_kwargs.{} is no JSON: {}", name, json);
  }
  return variables;
}

}  // namespace orrery::actors
