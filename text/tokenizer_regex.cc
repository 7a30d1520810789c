#include "text/tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "core/ascii.h"
#include "core/error.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text {
namespace {

constexpr size_t kMaxPattern = 64 * 1024;
constexpr uint32_t kMatchLimit = 50'000'000;    // steps of one match
constexpr uint32_t kHeapLimitKib = 256 * 1024;  // memory of one match
constexpr size_t kJitStackBytes = 1024 * 1024;

std::string shown_pattern(std::string_view pattern) {
  return "\"" + std::string(pattern.substr(0, 120)) + "\"";
}

/// Rewrites one pattern, character by character.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        in_class();
      } else {
        outside(c);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("{}: {} in the regular expression {} is not supported", where_, what, shown_pattern(in_));
  }
  void copy(size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }

  void outside(char c) {
    if (c == '[') {
      in_class_ = true;
      copy(1);
      if (at_ < in_.size() && in_[at_] == '^') copy(1);
      if (at_ < in_.size() && in_[at_] == ']') refuse("a class that starts with ]");
      return;
    }
    if (c == '(' && in_.substr(at_, 2) == "(?") {
      static constexpr std::array<std::string_view, 7> kGroups = {
          "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
      for (const std::string_view group : kGroups) {
        if (in_.substr(at_, group.size()) == group) return copy(group.size());
      }
      refuse(in_.substr(at_, 4));
    }
    if (c == '(' && in_.substr(at_, 2) == "(*") refuse("(*");
    // In Ruby's syntax {n,m}+ repeats the repetition; in PCRE2 it is possessive.
    if (c == '}' && in_.substr(at_, 2) == "}+") refuse("}+");
    // In Ruby's syntax {,n} means {0,n}; in PCRE2 it is literal text.
    if (c == '{' && in_.substr(at_, 2) == "{,") refuse("{,n}");
    copy(1);
  }

  void in_class() {
    const char c = in_[at_];
    if (c == '[') refuse("a class within a class");
    if (in_.substr(at_, 2) == "&&") refuse("an intersection of classes");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const char c = in_[at_ + 1];
    switch (c) {
      case 's':
        return replace("\\p{White_Space}");
      case 'S':
        return replace("\\P{White_Space}");
      case 'w':
        return replace(in_class_ ? kWord : "[" + std::string(kWord) + "]");
      case 'W':
        if (in_class_) refuse("\\W in a class");
        return replace("[^" + std::string(kWord) + "]");
      case 'd':
      case 'D':
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return copy(2);
      case 'p':
      case 'P':
        return property();
      case 'x':
        return hexadecimal();
      case 'u':
        return unicode();
      case 'A':
      case 'z':
        if (!in_class_) return copy(2);
        refuse("an anchor in a class");
      default:
        if (is_ascii(c) && !is_letter(c) && !is_digit(c)) return copy(2);
        refuse(in_.substr(at_, 2));
    }
  }

  void replace(std::string_view text) {
    out_ += text;
    at_ += 2;
  }

  void property() {
    const size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos)
      refuse("\\p without {name}");
    copy(close + 1 - at_);
  }

  void hexadecimal() {
    if (in_.substr(at_ + 2, 1) == "{") {
      const size_t close = in_.find('}', at_);
      if (close == std::string_view::npos) refuse("\\x{ without }");
      return copy(close + 1 - at_);
    }
    // In a UTF-8 pattern Oniguruma reads \xHH above 7F as a byte of a character; PCRE2
    // reads it as a code point.
    if (in_.size() < at_ + 4 ||
        std::string_view("01234567").find(in_[at_ + 2]) == std::string_view::npos) {
      refuse("\\x without two digits up to 7F");
    }
    copy(4);
  }

  void unicode() {
    const std::string_view digits = in_.substr(std::min(in_.size(), at_ + 2), 4);
    if (digits.size() != 4 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
      refuse("\\u without four digits");
    }
    out_ += "\\x{";
    out_ += digits;
    out_ += "}";
    at_ += 6;
  }

  static constexpr const char* kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}";

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

template <class T, void (*Free)(T*)>
struct Freer {
  void operator()(T* pointer) const { Free(pointer); }
};
template <class T, void (*Free)(T*)>
using Owned = std::unique_ptr<T, Freer<T, Free>>;

using MatchData = Owned<pcre2_match_data, pcre2_match_data_free>;
using MatchContext = Owned<pcre2_match_context, pcre2_match_context_free>;
using JitStack = Owned<pcre2_jit_stack, pcre2_jit_stack_free>;

}  // namespace

struct Regex::Compiled {
  Owned<pcre2_code, pcre2_code_free> code;
  std::string where;
  std::string pattern;
};

std::string pcre2_syntax(std::string_view oniguruma, const std::string& where) {
  return Translator(oniguruma, where).run();
}

Regex::Regex(std::string_view pattern, std::string where)
    : compiled_(std::make_unique<Compiled>()) {
  if (pattern.size() > kMaxPattern)
    fail("{}: a regular expression of {} bytes is too long", where, pattern.size());
  if (find_invalid_utf8(pattern) != std::string_view::npos)
    fail("{}: the regular expression is not UTF-8", where);
  const std::string translated = pcre2_syntax(pattern, where);
  const Owned<pcre2_compile_context, pcre2_compile_context_free> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                    &offset, context.get()));
  if (compiled_->code == nullptr) {
    fail("{}: the regular expression {} is malformed: {}", where, shown_pattern(pattern),
         pcre2_message(error));
  }
  // Without the just-in-time compiler, matching is slower and gives the same result.
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);
  compiled_->where = std::move(where);
  compiled_->pattern = pattern;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text,
                           const std::function<void(size_t, size_t)>& on_match) const {
  const MatchData data(pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  JitStack stack;
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t offset = 0;
  while (offset < text.size()) {
    int result = pcre2_match(compiled_->code.get(), subject, text.size(), offset,
                             PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
      stack.reset(pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(compiled_->code.get(), subject, text.size(), offset,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context.get());
    }
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      fail("{}: the regular expression {} failed on a text of {} bytes: {}", compiled_->where,
           shown_pattern(compiled_->pattern), text.size(), pcre2_message(result));
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    const size_t begin = span[0], end = span[1];
    if (end > begin) {
      on_match(begin, end);
      offset = end;
    } else {
      // An empty match splits nothing. The search goes on at the next character.
      const size_t from = std::max(begin, offset);
      if (from >= text.size()) return;
      offset = from + utf8_length(text[from]);
    }
  }
}

}  // namespace orrery::text
