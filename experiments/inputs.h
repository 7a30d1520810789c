// What a run learns from that is not in its config: the content of data files and of
// the model's folder, as digests. Ranks compare them before they begin, and a resumed
// run with what its checkpoint was trained on.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// Digests of data.train_files, data.val_files, the files of sft (where there are SFT
/// steps), model.chat_template_file and, of model.path, config.json (as far as it is
/// read) and the tokenizer's files. Reads each file once, in pieces. Never an Error: a
/// file that cannot be read has a digest that says why (who needs it will complain, or
/// not), one that can be read only once (a pipe) says so and equals any other.
std::vector<storage::InputDigest> read_inputs(const proto::Config& config);

/// Of weights in memory.
storage::InputDigest weights_input(std::span<const float> weights);

/// "data.train_files[1]", "model.path/tokenizer.json": a name of inputs[at] that two
/// ranks share.
std::string input_label(std::span<const storage::InputDigest> inputs, size_t at);

/// Whether its file could be read.
bool is_readable(const storage::InputDigest& input);

/// Whether the two hold the same, as far as can be known.
bool same_content(const storage::InputDigest& a, const storage::InputDigest& b);

/// What differs, a phrase for each input: "data.train_files[0]: /a.jsonl held
/// sha256:12.., now sha256:34..". Data files count in their order, whatever they are
/// called. Not config.json, of which a checkpoint has the text.
std::vector<std::string> input_changes(std::span<const storage::InputDigest> before,
                                       std::span<const storage::InputDigest> after);

/// A digest, short enough for a line.
std::string short_digest(const std::string& digest);

}  // namespace orrery::experiments
