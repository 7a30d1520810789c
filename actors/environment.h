// An environment is what a policy is trained on. reset() starts an episode on one item;
// step() takes the policy's text and returns a reward, or an observation that the
// policy sees next (multi-turn). The loss masks the tokens of observations.
//
// Environments are immutable and thread-safe, except for the methods that are marked as
// the actor thread's own. An Episode belongs to one thread. Item `index` of a split is
// a pure function of (config, seed, index), so items are read in any order and there is
// no state to save.
//
// Most environments answer at once. One that asks an external program (data.env:
// external) takes longer: the actor hands a turn over with submit(), goes on with other
// samples, and asks for the answer with try_result().
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/config.pb.h"
#include "text/chat_template.h"

namespace orrery::actors {

enum class Split { kTrain, kVal };

struct StepResult {
  bool done = true;
  /// The episode's reward when done. It also counts when not done, but the response was
  /// cut off or the observation has no room left, as the episode then ends with it; so
  /// an environment of several turns gives what has been earned so far. (External
  /// ones cannot: they get 0, docs/formats.md.)
  float reward = 0;
  std::string observation;  ///< text for the policy, when not done
  /// Parts of the reward, for metrics ("correct", "format").
  std::map<std::string, double> extra;
  /// The environment failed: there is no reward, and the sample is dropped.
  bool dropped = false;
};

/// Identifies a sample of a run to a program outside.
struct SampleId {
  uint64_t step = 0;  ///< RL steps that were done when the sample was requested
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
};

class Episode {
 public:
  virtual ~Episode() = default;
  /// The conversation at the start, as a chat model gets it: system, user and further
  /// messages.
  virtual const std::vector<text::ChatMessage>& messages() const = 0;
  /// The tools that the chat template presents to the model, as a list of JSON schemas;
  /// null when there are none.
  virtual const text::OrderedJson& tools() const {
    static const text::OrderedJson kNone;
    return kNone;
  }
  /// The conversation as one plain text, for a base model.
  virtual const std::string& prompt() const = 0;
  virtual const std::string& data_source() const = 0;
  /// The right answer as the data row writes it, for people to read; empty when there
  /// is none.
  virtual std::string truth() const { return ""; }
  virtual StepResult step(const std::string& response) = 0;

  /// Begins what step() does; try_result() returns its result once there is one. Only
  /// one turn may be under way. `tokens_left` is how many tokens an observation and all
  /// further turns may have together; with 0 the episode ends with this turn.
  virtual void submit(const std::string& response, int64_t tokens_left) {
    (void)tokens_left;
    result_ = step(response);
  }
  virtual std::optional<StepResult> try_result() { return std::exchange(result_, std::nullopt); }

 private:
  std::optional<StepResult> result_;
};

/// A supervised example: a prompt and the answer that a teacher would give.
struct Demonstration {
  std::string prompt;
  std::string response;
};

/// The line of a data file that an item was read from; lines count from 1. An item that
/// was not read from a file has an empty name and line 0.
struct DataRow {
  std::string file;
  uint64_t line = 0;
};

class Environment {
 public:
  virtual ~Environment() = default;
  /// The number of items in a split; 0 when items are generated and there is no limit.
  virtual uint64_t size(Split split) const = 0;
  /// Starts an episode. Throws an Error that names file and line, or the index, when
  /// the item cannot be used.
  virtual std::unique_ptr<Episode> reset(Split split, uint64_t index) const = 0;
  /// The same as reset(), for a sample of a run.
  virtual std::unique_ptr<Episode> begin(Split split, uint64_t index, const SampleId& id) const {
    (void)id;
    return reset(split, index);
  }
  /// Says where an item comes from, for messages: "file:line", or its index.
  virtual std::string where(Split split, uint64_t index) const;
  virtual DataRow data_row(Split split, uint64_t index) const;
  /// The names in the `extra` of every result, where they are known before the first;
  /// empty where only results tell.
  virtual std::vector<std::string> reward_parts() const { return {}; }
  /// The teacher's answer to a training item; nothing when there is none.
  virtual std::optional<Demonstration> demonstration(uint64_t index) const = 0;

  // The methods below are for environments that answer later. Only the actor's thread
  // calls them.

  /// Prepares for turns that will be submitted soon.
  virtual void warm_up() const {}
  /// Tries for a moment whether the environment works. Throws an Error when it cannot
  /// work at all.
  virtual void check_starts() const {}
  /// Lets submitted turns make progress. When none has a result, waits up to `timeout`
  /// for one. Returns whether some turn may have a result now. Throws an Error when the
  /// environment cannot work at all.
  virtual bool poll(std::chrono::milliseconds timeout) const {
    (void)timeout;
    return true;
  }
  /// Forgets every turn that was submitted.
  virtual void cancel() const {}
  /// Describes what has failed since the last call, for a warning; empty when nothing
  /// has.
  virtual std::string take_failure_text() const { return ""; }
};

/// Makes the environment that data.env names. Reads data.train_files and
/// data.val_files. A row that cannot be used is an Error with file:line, or is skipped
/// and counted in a warning, as data.on_error says.
std::unique_ptr<Environment> make_environment(const proto::DataSection& data, uint64_t seed);

}  // namespace orrery::actors
