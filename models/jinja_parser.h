// The part of the Jinja language that chat templates are written in, parsed once into a tree: text, {{ output
// }}, if/elif/else, for (with if, else, break, continue), set (also of namespace members and as a block),
// generation, comments; white space is handled as Hugging Face transformers sets Jinja up (trim_blocks,
// lstrip_blocks). Anything else throws Error saying what. Internal to chat_template.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/jinja_value.h"

namespace orrery::jinja {

enum class ExpressionKind {
  kLiteral,      // value
  kName,         // text
  kList,         // children
  kDict,         // children: key, value, key, value ...
  kAttribute,    // children[0] . text
  kItem,         // children[0] [ children[1] ]
  kSlice,        // children[0] [ children[1] : children[2] : children[3] ], null where absent
  kCall,         // children[0] ( children[1..] ), keyword arguments as kKeyword
  kKeyword,      // text = children[0]
  kFilter,       // children[0] | text ( children[1..] )
  kTest,         // children[0] is text ( children[1..] )
  kNot,          // not children[0]
  kNegative,     // - children[0]
  kBinary,       // children[0] text children[1]: + - * // % ~ == != < <= > >= in and or
  kConditional,  // children[0] if children[1] else children[2] (null where absent)
};

struct Expression {
  ExpressionKind kind;
  std::string text;
  Value value;
  std::vector<std::unique_ptr<Expression>> children;
  int depth = 0;  // of the tree below
};
using ExpressionPtr = std::unique_ptr<Expression>;

enum class StatementKind { kText, kOutput, kIf, kFor, kSet, kSetBlock, kBreak, kContinue, kGroup };

struct Statement;
using Block = std::vector<Statement>;

struct Statement {
  StatementKind kind;
  std::string text;                // of kText
  std::vector<std::string> names;  // targets of for; of set: a name, or a namespace and its member
  ExpressionPtr expression;        // output, condition, iterable, value
  ExpressionPtr filter;            // for ... if
  Block body;
  Block otherwise;  // else (an elif is an if in here)
};

/// Throws Error with the line for syntax that is malformed or not supported.
Block parse_template(std::string_view text);

}  // namespace orrery::jinja
