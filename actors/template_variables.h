// data.chat_template_kwargs in the form that a chat template takes.
#pragma once

#include "proto/config.pb.h"
#include "text/chat_template.h"

namespace orrery::actors {

/// Returns the variables as a JSON object, sorted by name. Throws a usage Error when a
/// value is not JSON.
text::OrderedJson template_variables(const proto::DataSection& data);

}  // namespace orrery::actors
