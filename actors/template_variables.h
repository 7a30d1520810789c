// data.chat_template_kwargs as the chat template takes it.
#pragma once

#include "proto/config.pb.h"
#include "text/chat_template.h"

namespace orrery {

/// The variables as a JSON object, in the order of their names.
OrderedJson template_variables(const proto::DataSection& data);

}  // namespace orrery
