// The "normalizer" of tokenizer.json. Supported are NFC, NFD, NFKC, NFKD, Lowercase,
// Prepend, Replace, and Sequence of those. Any other type is an Error naming the file
// and the type. Immutable, safe to share between threads.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"

namespace orrery::text {

class Normalizer {
 public:
  /// With a null node the normalizer changes nothing.
  explicit Normalizer(const JsonNode& node);

  /// Takes and returns valid UTF-8.
  std::string apply(std::string_view text) const;

 private:
  enum class Form { kNfc, kNfd, kNfkc, kNfkd, kLowercase };
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  using Step = std::variant<Form, Prepend, Replace>;

  void add(const JsonNode& node, int depth);
  static std::string apply_form(Form form, std::string text);

  std::vector<Step> steps_;
};

}  // namespace orrery::text
