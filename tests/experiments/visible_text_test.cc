#include "experiments/visible_text.h"

#include <gtest/gtest.h>

namespace orrery::experiments {
namespace {

TEST(VisibleText, PlainTextStays) {
  for (const char* text :
       {"", "plain", "caf\u00e9 \u4f60\u597d \U0001F600", "tab\tstays", "\\x1b as text",
        "\U0001F468\u200d\U0001F469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"}) {
    EXPECT_EQ(visible_text(text), text);
  }
}

TEST(VisibleText, NothingDrivesATerminal) {
  EXPECT_EQ(visible_text("\x1b[2J\x1b]0;title\x07"), "\\x1b[2J\\x1b]0;title\\x07");
  EXPECT_EQ(visible_text(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(visible_text("over\rwritten\b\x7f"), "over\\rwritten\\x08\\x7f");
  EXPECT_EQ(visible_text("\u009b31m\u0085"), "\\u009b31m\\u0085");
  EXPECT_EQ(visible_text("\u202eright to left\u2066 \u200b \ufeff \u2028"),
            "\\u202eright to left\\u2066 \\u200b \\ufeff \\u2028");
  EXPECT_EQ(visible_text("\U000E0041"), "\\U000e0041");
}

TEST(VisibleText, BytesThatAreNotUtf8AreShownOneByOne) {
  EXPECT_EQ(visible_text("a\xff\xfe"
                         "b"),
            "a\\xff\\xfe"
            "b");
  EXPECT_EQ(visible_text("\x9b[2J"), "\\x9b[2J");
  EXPECT_EQ(visible_text("\xe2\x82"), "\\xe2\\x82");
  EXPECT_EQ(visible_text("\xc3\xa9\xc3"), "\xc3\xa9\\xc3");
  EXPECT_EQ(visible_text("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
}

TEST(VisibleText, LaterLinesAreIndented) {
  EXPECT_EQ(visible_text("a\nb\r\n\nc", 2), "a\n  b\\r\n  \n  c");
  EXPECT_EQ(visible_text("\xff\n\xff", 3), "\\xff\n   \\xff");
}

}  // namespace
}  // namespace orrery::experiments
