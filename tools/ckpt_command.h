// `orrery ckpt ls | show | verify | diff | hash | export | import | convert`.
#pragma once

#include "tools/commands.h"

namespace orrery::tools {

/// As the other commands of tools/commands.h.
void add_ckpt_command(CLI::App& app, Command& run);

}  // namespace orrery::tools
