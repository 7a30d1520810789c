// Which items of a data set can be used, found out before the first step: a row that
// does not fit must not end a run hours later, nor vanish without a word.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"

namespace orrery::actors {

/// How items are checked, and who speaks.
struct CheckSetup {
  Context ctx;                  ///< its threads
  bool tell = true;             ///< log progress and what is left out: one rank of many
  std::function<void()> alive;  ///< called between parts of the work, for a watchdog; may be empty
  double tell_every_seconds = 4;  ///< how far the check is; a shorter one says nothing
};

/// Why an item cannot be used. An empty text: it can.
struct ItemProblem {
  std::string text;       ///< begins with where the item stands ("file:line: ")
  bool too_long = false;  ///< a limit that the text names last could be raised
};

struct ItemCheck {
  std::string noun;     ///< what the items are, many: "training prompts"
  uint64_t count = 0;   ///< items there are, numbered from 0
  uint64_t wanted = 0;  ///< how many that can be used are needed: later items are not looked at
  bool skip = false;    ///< leave an item out that cannot be used, instead of an Error
  /// Called by several threads at once, in any order. What it throws ends the check.
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
  uint64_t all_ = 0;             // items [0, all_) can all be used, or
  std::vector<uint64_t> items_;  // these
};

/// Looks at items in order until `wanted` can be used or there are no more. Without
/// skip the first that cannot be used is a usage Error, which the lowest such item
/// gives whatever the threads do; so is it when none can be used. With skip one warning
/// says how many were left out and why the first. A check of many seconds says now and
/// then how far it is.
UsableItems find_usable(const CheckSetup& setup, const ItemCheck& check);

/// Items of an environment that generates them are endless and cannot be checked in
/// advance: this many are looked at.
inline constexpr uint64_t kGeneratedSample = 1000;
/// One that cannot be used is replaced: by item redrawn(item, 1), else redrawn(item, 2)
/// and so on, which are no other prompt's.
inline constexpr uint64_t kMaxRedraws = 1000;
inline uint64_t redrawn(uint64_t item, uint64_t attempt) { return item + (attempt << 48); }

/// "7,473,000".
std::string grouped(uint64_t number);

}  // namespace orrery::actors
