// The self-test's table, as Markdown, a line as each check ends.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace orrery::selftest {

class Report {
 public:
  void heading(const std::string& text) {
    std::printf("\n### %s\n\n| check | results | differ |\n| --- | ---: | ---: |\n", text.c_str());
  }

  /// A check over `count` results of which `differing` were not as defined.
  void row(const std::string& name, uint64_t count, uint64_t differing) {
    std::printf("| %s | %llu | %llu |\n", name.c_str(), static_cast<unsigned long long>(count),
                static_cast<unsigned long long>(differing));
    std::fflush(stdout);
    if (differing != 0) ++failed_;
    ++checks_;
  }

  /// A line below the table so far: what differs, or what was seen.
  static void note(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

  int checks() const { return checks_; }
  int failed() const { return failed_; }

 private:
  int checks_ = 0, failed_ = 0;
};

}  // namespace orrery::selftest
