// A process that answers requests: a line to it, a line from it. Its bytes move without
// waiting, both ways at once, so that one that does not read, or says too much, holds
// nobody up.
#pragma once

#include <poll.h>

#include <chrono>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/child_process.h"

namespace orrery::actors {

/// One line for a message: at most `limit` bytes of it, what is no UTF-8 or would steer
/// a terminal replaced.
std::string printable(std::string_view text, size_t limit);

/// The end of what was written, however much it was: some lines, long ones cut.
class LastLines {
 public:
  void add(std::string_view bytes);
  /// The lines on one, " | " between them; empty when there are none.
  std::string text() const;

 private:
  std::deque<std::string> lines_;
  std::string open_;  // the line that has not ended
};

class Worker {
 public:
  static constexpr size_t kLongestLine = size_t{16} << 20;

  /// Error as ChildProcess.
  explicit Worker(const std::string& command) : process_(command) {}

  /// Queues a line, which has its end.
  void send(std::string_view line);
  /// The rest of its input is its end.
  void send_end();

  /// What poll(2) is to look at; added to `fds`.
  void add_to(std::vector<pollfd>& fds) const;

  /// Moves what can be moved without waiting.
  void pump();
  /// The next whole line that it has written, without its end.
  std::optional<std::string> take_line();

  /// Why it will never answer again, as what it did ("ended with exit status 1"); empty
  /// while it may. Lines that it wrote before are still to be taken.
  std::string problem();
  /// It has closed its stdout, which most often is its end.
  bool is_closing() const { return out_ended_.has_value(); }
  /// Of its own will, and with nothing half said.
  bool ended_well();
  /// The shell's status for a command that is not there (127) or cannot be run (126).
  bool was_not_found();
  /// Its last words on stderr, as LastLines has them.
  std::string last_words() const { return errors_.text(); }

  void kill();

 private:
  void write_pending();
  void read_answers();
  void read_errors();

  ChildProcess process_;
  std::string pending_;  // to be written, from written_ on
  size_t written_ = 0;
  bool send_end_ = false;
  std::string answers_;  // read, from taken_ on; no end of line before searched_
  size_t taken_ = 0, searched_ = 0;
  std::optional<std::chrono::steady_clock::time_point> out_ended_;  // when that was seen
  bool too_long_ = false;
  LastLines errors_;
};

}  // namespace orrery::actors
