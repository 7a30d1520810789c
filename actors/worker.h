// A process that answers requests: it reads lines and writes lines. Bytes move both
// ways at once and without waiting, so a process that does not read, or that writes too
// much, holds nobody up. Not thread-safe.
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

/// Returns at most `limit` bytes of `text` as one line for a message. Bytes that are
/// not UTF-8 and characters that would steer a terminal are replaced.
std::string printable(std::string_view text, size_t limit);

/// Keeps the last lines of an output of any length; long lines are cut.
class LastLines {
 public:
  void add(std::string_view bytes);
  /// Returns the lines joined by " | "; empty when there are none.
  std::string text() const;

 private:
  std::deque<std::string> lines_;
  std::string open_;  // the last line, which has not ended yet
};

class Worker {
 public:
  static constexpr size_t kLongestLine = size_t{16} << 20;

  /// Starts the process. Throws what ChildProcess throws.
  explicit Worker(const std::string& command) : process_(command) {}

  /// Queues a line, including its end of line.
  void send(std::string_view line);
  /// Closes the input when everything queued has been written.
  void send_end();

  /// Adds to `fds` what poll(2) is to wait for.
  void add_to(std::vector<pollfd>& fds) const;

  /// Reads and writes whatever can be moved without waiting.
  void pump();
  /// Takes the next whole line that the process has written, without its end of line.
  std::optional<std::string> take_line();

  /// Says why the process will never answer again, as something that it did ("ended
  /// with exit status 1"); empty while it may. Lines that it wrote before can still be
  /// taken.
  std::string problem();
  /// Whether the process has closed its stdout. Most often it is about to end.
  bool is_closing() const { return out_ended_.has_value(); }
  /// Whether the process ended by itself, with exit status 0 and no unfinished line.
  bool ended_well();
  /// Whether the shell reported that the command does not exist (127) or cannot be run
  /// (126).
  bool was_not_found();
  /// The last lines that the process wrote to stderr, as LastLines returns them.
  std::string last_stderr() const { return errors_.text(); }

  void kill();

 private:
  void write_pending();
  void read_answers();
  void read_errors();

  ChildProcess process_;
  std::string pending_;  // waits to be written, from written_ on
  size_t written_ = 0;
  bool send_end_ = false;
  std::string answers_;  // what was read and not taken begins at taken_
  // No line ends between taken_ and searched_.
  size_t taken_ = 0, searched_ = 0;
  std::optional<std::chrono::steady_clock::time_point> out_ended_;  // when its end was seen
  bool too_long_ = false;
  LastLines errors_;
};

}  // namespace orrery::actors
