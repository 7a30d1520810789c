// Finds out before the first step which items of a data set can be used: a row that
// does not fit must not end a run hours later, nor vanish without a word.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"

namespace orrery::actors {

/// How items are checked, and whether this rank logs.
struct CheckSetup {
  Context ctx;       ///< gives the threads
  bool tell = true;  ///< whether to log progress and what is left out; set on one rank
  /// Called between parts of the work, for a watchdog; may be empty.
  std::function<void()> on_progress;
  /// Seconds between two lines about progress; a shorter check logs none.
  double log_every_seconds = 4;
};

/// Why an item cannot be used. The text is empty when it can.
struct ItemProblem {
  std::string text;       ///< begins with where the item stands ("file:line: ")
  bool too_long = false;  ///< raising the limit that the text names last would help
};

struct ItemCheck {
  std::string noun;    ///< what the items are, in the plural: "training prompts"
  uint64_t count = 0;  ///< how many items there are; they are numbered from 0
  /// How many usable items are needed; the check stops when it has found them.
  uint64_t wanted = 0;
  bool skip = false;  ///< leave an unusable item out, instead of throwing an Error
  /// Says what is wrong with an item. Several threads call it at once, in any order.
  /// What it throws ends the check.
  std::function<ItemProblem(uint64_t item)> problem;
};

/// The items that can be used, in order.
class UsableItems {
 public:
  UsableItems() = default;
  uint64_t size() const { return items_.empty() ? all_ : items_.size(); }
  uint64_t operator[](uint64_t at) const { return items_.empty() ? at : items_[at]; }

 private:
  friend UsableItems find_usable(const CheckSetup& setup, const ItemCheck& check);
  uint64_t all_ = 0;             // items [0, all_) can all be used, unless
  std::vector<uint64_t> items_;  // lists the ones that can
};

/// Checks items in order until `wanted` usable ones are found or there are no more.
/// Without skip the first unusable item is a usage Error; it is the lowest such item,
/// whatever the threads do. With skip one warning says how many items were left out and
/// why the first was. It is a usage Error when no item can be used. A check that takes
/// many seconds logs its progress now and then.
UsableItems find_usable(const CheckSetup& setup, const ItemCheck& check);

/// How many items are checked of an environment that generates them, which never end.
inline constexpr uint64_t kGeneratedItemsChecked = 1000;
inline constexpr uint64_t kMaxRedraws = 1000;
/// The item that replaces a generated one that cannot be used. Attempts are 1, 2, and
/// so on until one can be used; attempt 0 is the item itself. No other prompt has
/// these.
inline uint64_t replacement_item(uint64_t item, uint64_t attempt) { return item + (attempt << 48); }

/// Writes the digits "7473000" as "7,473,000".
std::string grouped_digits(const std::string& digits);
/// Does the same for a whole number that is not negative.
std::string with_thousands_separators(std::integral auto number) {
  return grouped_digits(std::to_string(number));
}

}  // namespace orrery::actors
