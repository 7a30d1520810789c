// Digests of what a run learns from and what its config does not hold: the contents of
// data files and of the model's folder. Ranks compare them before they begin, and a
// resumed run compares them with what its checkpoint was trained on.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"
#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// Returns digests of data.train_files, data.val_files, the files of sft (if there are
/// SFT steps), model.chat_template_file and, in model.path, config.json (as far as it
/// is read) and the tokenizer's files. Each file is read once, in pieces.
///
/// It never throws. A file that cannot be read has a digest that says why, and whoever
/// needs the file will complain. A file that can be read only once (a pipe) has a
/// digest that says so and equals any other.
std::vector<storage::InputDigest> read_inputs(const proto::Config& config);

/// Returns the digest of weights in device memory.
storage::InputDigest weights_input(const Context& ctx, Vec<const float> weights);

/// Returns a name for inputs[at] that is the same on all ranks: "data.train_files[1]",
/// "model.path/tokenizer.json".
std::string input_label(std::span<const storage::InputDigest> inputs, size_t at);

/// Whether the input's file could be read.
bool is_readable(const storage::InputDigest& input);

/// Whether two inputs have the same contents, as far as that can be known.
bool same_content(const storage::InputDigest& a, const storage::InputDigest& b);

/// Says what differs, with a phrase for each input: "data.train_files[0]: /a.jsonl held
/// sha256:12.., now sha256:34..". Data files are compared in their order, whatever
/// their names. config.json is left out, because a checkpoint has its text.
std::vector<std::string> input_changes(std::span<const storage::InputDigest> before,
                                       std::span<const storage::InputDigest> after);

/// Returns a digest that is short enough for a line.
std::string short_digest(const std::string& digest);

}  // namespace orrery::experiments
