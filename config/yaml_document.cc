#include "config/yaml_document.h"

#include <utf8proc.h>
#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>

#include <sstream>
#include <vector>

#include "config/yaml_to_proto.h"
#include "core/ascii.h"
#include "core/error.h"

namespace orrery::config {
namespace {

/// Notes where the documents of a YAML text begin, and nothing else.
class DocumentMarks final : public YAML::EventHandler {
 public:
  std::vector<YAML::Mark> marks;

  void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

}  // namespace

void fail_at(const std::string& where, const std::string& message) {
  fail_usage("{}: {}", where, message);
}

std::string shown(const std::string& text) {
  constexpr size_t kLongest = 60;
  std::string out;
  for (const char c : first_characters(text, kLongest)) out += is_control(c) ? ' ' : c;
  return text.size() > kLongest ? out + "..." : out;
}

std::string place(const std::string& name, const YAML::Mark& mark) {
  return mark.line < 0 || name == ConfigReader::kCommandLine
             ? name
             : fmt::format("{}:{}", name, mark.line + 1);
}

YAML::Node parse_yaml(const std::string& text, const std::string& name) {
  try {
    // Not YAML::LoadAll: yaml-cpp 0.7 finds documents without end where a tag is
    // malformed ("!a,b\n=").
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentMarks documents;
    for (int i = 0; i < 2 && parser.HandleNextDocument(documents); ++i) continue;
    if (documents.marks.size() > 1) {
      fail_at(place(name, documents.marks[1]),
              "a second document begins (---): a config is one document");
    }
    return documents.marks.empty() ? YAML::Node() : YAML::Load(text);
  } catch (const YAML::DeepRecursion& e) {
    fail_at(place(name, e.mark), "nested too deeply for a config");
  } catch (const YAML::Exception& e) {
    fail_at(place(name, e.mark),
            fmt::format("not valid YAML: {} (column {})", e.msg, e.mark.column + 1));
  }
}

void check_config_text(const std::string& text, const std::string& where) {
  for (int64_t at = 0; at < std::ssize(text);) {
    utf8proc_int32_t codepoint = 0;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
    const int64_t length = utf8proc_iterate(bytes, std::ssize(text) - at, &codepoint);
    if (length <= 0)
      fail_at(where, fmt::format("byte {} is not UTF-8: save the file as UTF-8", at));
    if (codepoint == 0) fail_at(where, fmt::format("byte {} is NUL: this is not a text file", at));
    at += length;
  }
}

}  // namespace orrery::config
