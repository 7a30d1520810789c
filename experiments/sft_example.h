// One example of the supervised stage, and what sft.max_length does to it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "actors/item_check.h"
#include "text/chat_training.h"

namespace orrery::experiments {

struct SftExample : text::ChatExample {
  double weight = 1;  ///< the weight of each of its tokens in the loss; finite and >= 0

  int64_t loss_tokens() const;
  int64_t tokens() const { return std::ssize(prompt) + std::ssize(response); }
};

/// Says why an example, be it a demonstration or a row, cannot be used: it has no
/// prompt, nothing to learn, or a prompt that leaves no room for a response in
/// `max_length`. `where` names the example; `what` names its response ("the
/// demonstration").
actors::ItemProblem sft_problem(const text::ChatExample& example, int64_t max_length,
                                const std::string& where, const char* what);

/// Cuts the response's end, so that the example has at most `max_length` tokens, the
/// last of which is learned. REQUIRES: sft_problem() finds no problem.
void cut_example(text::ChatExample& example, int64_t max_length);

/// Counts which of some texts are cut.
class Cuts {
 public:
  explicit Cuts(uint64_t count) : lengths_(count) {}
  /// Records that item `item` has `length` tokens and is cut. Any thread may call it,
  /// for an item of its own.
  void add(uint64_t item, int64_t length) { lengths_[item] = length; }
  /// Logs one warning if any item is cut.
  void tell(const char* what, int64_t limit,
            const std::function<std::string(uint64_t)>& where) const;

 private:
  std::vector<int64_t> lengths_;  // 0: not cut
};

}  // namespace orrery::experiments
