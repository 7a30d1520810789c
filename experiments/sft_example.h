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
  double weight = 1;  ///< of each of its tokens in the loss; finite, >= 0

  int64_t loss_tokens() const;
  int64_t tokens() const { return static_cast<int64_t>(prompt.size() + response.size()); }
};

/// Why an example cannot be used, be it of a demonstration or of a row: it has no
/// prompt, nothing to learn, or a prompt that leaves no room for a response in
/// `max_length`. `where` names it, `what` is what has no tokens ("the demonstration").
actors::ItemProblem sft_problem(const text::ChatExample& example, int64_t max_length,
                                const std::string& where, const char* what);

/// Cuts the response's end, so that the example has at most max_length tokens, the last
/// of which is learned. REQUIRES: sft_problem finds none.
void cut_example(text::ChatExample& example, int64_t max_length);

/// Of some texts of which few are too long.
class Cuts {
 public:
  explicit Cuts(uint64_t count) : lengths_(count) {}
  /// Item `item` has `length` tokens and is cut. Different items by any thread.
  void add(uint64_t item, size_t length) { lengths_[item] = length; }
  /// One warning, when there are any.
  void tell(const char* what, int64_t limit,
            const std::function<std::string(uint64_t)>& where) const;

 private:
  std::vector<size_t> lengths_;  // 0: not cut
};

}  // namespace orrery::experiments
