// data.chat_template_kwargs as the chat template takes it.
#pragma once

#include "proto/config.pb.h"
#include "text/chat_template.h"

namespace orrery::actors {

/// The variables as a JSON object, in the order of their names.
text::OrderedJson template_variables(const proto::DataSection& data);

}  // namespace orrery::actors
