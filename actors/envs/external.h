// data.env: external: rows of any keys, whose responses a program of the user's rewards
// or answers (docs/formats.md, "Rewards from a program"). A row has its prompt under
// the first of these keys that it has: prompt (text or messages), messages, question,
// problem. The program is given the row as it stands.
//
// The processes of the program are started by the thread of the actor when it needs
// them, and live as long as the environment.
#pragma once

#include <memory>

#include "actors/environment.h"

namespace orrery::actors {

/// Reads data.train_files and data.val_files; as make_environment. `data` is copied.
std::unique_ptr<Environment> make_external(const proto::DataSection& data);

}  // namespace orrery::actors
