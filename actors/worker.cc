#include "actors/worker.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::actors {
namespace {

constexpr size_t kShownLines = 8, kShownBytes = 300;
/// How long a worker may have closed its stdout without having ended.
constexpr std::chrono::milliseconds kEndDelay{500};
/// The pieces that are read from one worker's stderr before others have their turn.
constexpr size_t kPiece = size_t{64} << 10, kPieces = 64;

}  // namespace

std::string printable(std::string_view text, size_t limit) {
  const bool cut = text.size() > limit;
  std::string valid;
  text::append_lossy_utf8(text.substr(0, limit), /*more_follows=*/cut, valid);
  std::string out;
  for (size_t at = 0; at < valid.size();) {
    const size_t length = text::utf8_length(valid[at]);
    const uint32_t code = text::utf8_code_point(valid, at);
    const bool control =
        code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029;
    out += control ? " " : valid.substr(at, length);
    at += length;
  }
  return cut ? out + "..." : out;
}

void LastLines::add(std::string_view bytes) {
  while (!bytes.empty()) {
    // A progress bar ends its lines by a carriage return.
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    // One byte more than is shown, so that text() can tell a line that was cut.
    const size_t room = kShownBytes + 1 - std::min(open_.size(), kShownBytes + 1);
    open_ += bytes.substr(0, std::min(end, room));
    if (end == bytes.size()) return;
    bytes.remove_prefix(end + 1);
    if (open_.find_first_not_of(" \t") != std::string::npos) lines_.push_back(std::move(open_));
    open_.clear();
    if (lines_.size() > kShownLines) lines_.pop_front();
  }
}

std::string LastLines::text() const {
  std::string out;
  const auto append = [&](const std::string& line) {
    if (line.find_first_not_of(" \t") == std::string::npos) return;
    out += (out.empty() ? "" : " | ") + printable(line, kShownBytes);
  };
  for (const std::string& line : lines_) append(line);
  append(open_);
  return out;
}

void Worker::send(std::string_view line) {
  pending_ += line;
  write_pending();
}

void Worker::send_end() {
  send_end_ = true;
  write_pending();
}

void Worker::write_pending() {
  while (process_.in() >= 0 && written_ < pending_.size()) {
    const ssize_t written =
        write_without_signal(process_.in(), std::string_view(pending_).substr(written_));
    if (written >= 0) {
      written_ += written;
      continue;
    }
    if (errno == EINTR) continue;
    // If the reader is gone, reading its output or its exit status will show it.
    if (errno != EAGAIN) process_.close_in();
    return;
  }
  pending_.clear();
  written_ = 0;
  if (send_end_) process_.close_in();
}

void Worker::add_to(std::vector<pollfd>& fds) const {
  if (written_ < pending_.size() && process_.in() >= 0) fds.push_back({process_.in(), POLLOUT, 0});
  if (process_.out() >= 0) fds.push_back({process_.out(), POLLIN, 0});
  if (process_.err() >= 0) fds.push_back({process_.err(), POLLIN, 0});
}

void Worker::pump() {
  write_pending();
  read_errors();
  read_answers();
}

void Worker::read_answers() {
  answers_.erase(0, taken_);
  searched_ -= taken_;
  taken_ = 0;
  std::array<char, kPiece> piece;
  while (process_.out() >= 0 && answers_.size() - taken_ <= kLongestLine) {
    const ssize_t count = ::read(process_.out(), piece.data(), piece.size());
    if (count > 0) {
      answers_.append(piece.data(), count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    out_ended_ = std::chrono::steady_clock::now();
    process_.close_out();
  }
}

void Worker::read_errors() {
  std::array<char, kPiece> piece;
  for (size_t i = 0; i < kPieces && process_.err() >= 0; ++i) {
    const ssize_t count = ::read(process_.err(), piece.data(), piece.size());
    if (count > 0) {
      errors_.add(std::string_view(piece.begin(), piece.begin() + count));
      continue;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    process_.close_err();
  }
}

std::optional<std::string> Worker::take_line() {
  const size_t end = answers_.find('\n', searched_);
  if (end == std::string::npos) {
    searched_ = answers_.size();
    too_long_ = too_long_ || answers_.size() - taken_ > kLongestLine;
    return std::nullopt;
  }
  std::string line = answers_.substr(taken_, end - taken_);
  taken_ = searched_ = end + 1;
  if (taken_ == answers_.size()) {
    answers_.clear();
    taken_ = searched_ = 0;
  }
  if (line.size() > kLongestLine) {
    too_long_ = true;
    return std::nullopt;
  }
  return line;
}

std::string Worker::problem() {
  if (too_long_) return fmt::format("wrote an answer of more than {} MiB", kLongestLine >> 20);
  const bool half = answers_.find_first_not_of(" \t\r\n", taken_) != std::string::npos;
  const char* where = half ? " in the middle of an answer" : "";
  if (process_.ended()) {
    pump();  // what it wrote last
    if (answers_.find('\n', taken_) != std::string::npos) return "";
    return fmt::format("ended with {}{}", process_.end_text(), where);
  }
  // Most often the process ends too, and the system reports that a moment later.
  if (out_ended_ && std::chrono::steady_clock::now() - *out_ended_ > kEndDelay)
    return fmt::format("closed its stdout{}", where);
  return "";
}

bool Worker::ended_well() {
  return process_.ended() && process_.exit_status() == 0 &&
         answers_.find_first_not_of(" \t\r\n", taken_) == std::string::npos;
}

bool Worker::was_not_found() {
  constexpr int kNotRunnable = 126, kNotFound = 127;
  return process_.ended() &&
         (process_.exit_status() == kNotRunnable || process_.exit_status() == kNotFound);
}

void Worker::kill() { process_.kill_group(); }

}  // namespace orrery::actors
