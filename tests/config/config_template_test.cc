// data.prompt_template_file and what of it the resolved config has.
#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "tests/config/config_file.h"

namespace orrery::config {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;
namespace fs = std::filesystem;

TEST_F(ConfigFile, APromptTemplateComesFromAFile) {
  const auto file = [this](const std::string& text, const char* name = "p.txt") {
    std::ofstream(folder_ / "sub" / name, std::ios::binary) << text;
  };
  const std::string with_file = "data: {prompt_template_file: p.txt}";
  const auto read = [&](const std::string& text) {
    file(text);
    return load(with_file).data().prompt_template();
  };
  EXPECT_EQ(read("Q: {}\n\nA:"), "Q: {}\n\nA:");
  EXPECT_EQ(read("Q: {}\n\n"), "Q: {}\n");  // one newline at the end is the file's
  EXPECT_EQ(read("Q: {}\r\n"), "Q: {}");
  EXPECT_EQ(read(""), "");  // which check_config refuses
  const std::string text = "#: \"{prompt}\"\n\t- \\boxed{}\n \xe2\x82\xac";
  file(text);
  const proto::Config config = load(with_file);
  EXPECT_EQ(config.data().prompt_template(), text);
  // The resolved config has the text and no path: it reads back alike when the file is
  // gone.
  EXPECT_FALSE(config.data().has_prompt_template_file());
  fs::remove(folder_ / "sub" / "p.txt");
  EXPECT_TRUE(MessageDifferencer::Equals(load(config_to_yaml(config)), config))
      << config_to_yaml(config);

  const std::string where = (folder_ / "sub" / "c.yaml").string() + ":1: ";
  const std::string path = (folder_ / "sub" / "p.txt").string();
  EXPECT_EQ(usage_error([&] { load(with_file); }),
            where + "data.prompt_template_file: " + path +
                ": there is no such file; give the text file of a prompt template");
  EXPECT_THAT(usage_error([&] { read("{} \xff"); }), HasSubstr("is not UTF-8"));
  EXPECT_THAT(usage_error([&] { read(std::string("{} \0", 4)); }), HasSubstr("is NUL"));
  EXPECT_THAT(usage_error([&] { read("{}" + std::string(70'000, 'x')); }),
              HasSubstr("at most 65536"));
  EXPECT_THAT(usage_error([&] { load("data: {prompt_template_file: .}"); }),
              HasSubstr("not a file"));
  // One of the two; an override replaces whichever the file has.
  file("file {}");
  EXPECT_EQ(
      usage_error([&] { load("data: {prompt_template: \"a {}\", prompt_template_file: p.txt}"); }),
      where + "data.prompt_template_file is set, and data.prompt_template at " +
          where.substr(0, where.size() - 2) +
          " says the same in another way: leave one of them out");
  EXPECT_EQ(load(with_file, {"data.prompt_template=typed {}"}).data().prompt_template(),
            "typed {}");
  EXPECT_EQ(load("data: {prompt_template: \"a {}\"}", {"data.prompt_template_file=" + path})
                .data()
                .prompt_template(),
            "file {}");
  EXPECT_EQ(load(with_file, {"data.prompt_template_file=null"}).data().prompt_template(), "{}");
}

}  // namespace
}  // namespace orrery::config
