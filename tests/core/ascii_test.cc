#include "core/ascii.h"

#include <gtest/gtest.h>

#include <cctype>

namespace orrery {
namespace {

TEST(Ascii, EveryByteIsWhatTheCLocaleCallsIt) {
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    EXPECT_EQ(byte_of(c), i);
    EXPECT_EQ(is_ascii(c), i < 128) << i;
    EXPECT_EQ(is_digit(c), std::isdigit(i) != 0) << i;
    EXPECT_EQ(is_upper(c), std::isupper(i) != 0) << i;
    EXPECT_EQ(is_letter(c), std::isalpha(i) != 0) << i;
    EXPECT_EQ(is_space(c), std::isspace(i) != 0) << i;
    EXPECT_EQ(is_control(c) || c == kDelete, std::iscntrl(i) != 0) << i;
    EXPECT_EQ(byte_of(to_lower(c)), std::tolower(i)) << i;
    EXPECT_EQ(byte_of(to_upper(c)), std::toupper(i)) << i;
  }
}

TEST(Ascii, TextsChangeTheirLettersOnly) {
  EXPECT_EQ(to_lower("Az[ É9"), "az[ É9");
  EXPECT_EQ(to_upper("aZ{ é9"), "AZ{ é9");
}

TEST(Ascii, DigitsHaveTheirValues) {
  for (int value = 0; value < 10; ++value) EXPECT_EQ(digit_value(to_digit(value)), value);
  EXPECT_EQ(to_digit(7), '7');
}

TEST(Ascii, ACutNeverLeavesHalfACharacter) {
  EXPECT_EQ(first_characters("abc", 3), "abc");
  EXPECT_EQ(first_characters("é", 2), "é");
  EXPECT_EQ(first_characters("abcd", 3), "abc");
  EXPECT_EQ(first_characters("abé", 3), "ab");
  EXPECT_EQ(first_characters("a\xF0\x9F\x98\x80", 4), "a");
  // A whole one at the cut goes, too: whether it is whole is not looked at.
  EXPECT_EQ(first_characters("aéb", 3), "a");
  EXPECT_EQ(first_characters("\x80\x80\x80", 2), "");
}

}  // namespace
}  // namespace orrery
