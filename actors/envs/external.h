// data.env: external. Rows have any keys, and a program of the user's rewards or
// answers the responses (docs/formats.md, "Rewards from a program"). A row's prompt is
// under the first of these keys that it has: prompt (text or messages), messages,
// question, problem. The program gets the row as it stands in the file.
//
// The actor's thread starts the program's processes when it needs them. They live as
// long as the environment.
#pragma once

#include <memory>

#include "actors/environment.h"

namespace orrery::actors {

/// Reads data.train_files and data.val_files, as make_environment does. `data` need not
/// outlive the environment.
std::unique_ptr<Environment> make_external(const proto::DataSection& data);

}  // namespace orrery::actors
