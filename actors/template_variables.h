// data.chat_template_kwargs as the chat template takes it.
#pragma once

#include "models/chat_template.h"
#include "proto/config.pb.h"

namespace orrery {

/// The variables as a JSON object, in the order of their names.
OrderedJson template_variables(const proto::DataSection& data);

}  // namespace orrery
