// Parses a chat template into a tree. The language has all of Jinja's expressions, its
// statements if, for (also recursive), set, macro, call, filter, with, print, break and
// continue, and transformers' generation. White space is handled as transformers sets
// Jinja up (trim_blocks, lstrip_blocks). A statement that needs a second template
// (block, extends, include, import) and anything else throws an Error that names it.
// Internal to chat_template.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace orrery::text::jinja {

enum class ExpressionKind {
  kLiteral,      // value
  kName,         // text
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value ...
  kAttribute,    // children[0] . text
  kItem,         // children[0] [ children[1] ]
  kSlice,        // children[0] [ children[1] : children[2] : children[3] ], null where absent
  kCall,         // children[0] ( children[1..] ), named by names
  kFilter,       // children[0] | text ( children[1..] ); children[0] is null in a filter block
  kTest,         // children[0] is text ( children[1..] )
  kNot,          // not children[0]
  kNegative,     // - children[0]
  kPositive,     // + children[0]
  kArithmetic,   // children[0] text children[1]
  kConcatenate,  // children joined by ~
  kCompare,      // children[0] names[0] children[1] names[1] children[2] ...
  kAnd,          // children[0] and children[1]
  kOr,           // children[0] or children[1]
  kConditional,  // children[0] if children[1] else children[2] (null where absent)
  kMember,       // namespace text . names[0], as a target
};

struct Expression {
  ExpressionKind kind;
  std::string text;
  Value value;
  std::vector<std::unique_ptr<Expression>> children;
  /// For a call, one per argument: empty, a keyword, * or **. For a comparison, the
  /// operators.
  std::vector<std::string> names;
  int depth = 0;  // of the tree below this node
};
using ExpressionPtr = std::unique_ptr<Expression>;

enum class StatementKind {
  kText,      // text
  kOutput,    // expression
  kIf,        // expression, body, otherwise (an elif is an if in there)
  kFor,       // target in expression if filter: body, else otherwise
  kSet,       // target = expression
  kSetBlock,  // target = body through the filters of expression (or null)
  kMacro,     // text(parameters): body
  kCall,      // expression, called with a caller(parameters): body
  kFilter,    // body through the filters of expression
  kWith,      // parameters: targets and values; body
  kGroup,     // body in a scope of its own
  kBreak,
  kContinue
};

struct Statement;
using Block = std::vector<Statement>;

struct Parameter {
  ExpressionPtr target;  // for with; a macro's parameter has a name
  std::string name;
  ExpressionPtr fallback;  // a macro's default, or null; the value in a with
};

struct Statement {
  StatementKind kind;
  std::string text;
  ExpressionPtr target;
  ExpressionPtr expression;
  ExpressionPtr filter;
  std::vector<Parameter> parameters;
  bool recursive = false;
  /// Whether the body of a macro or call block mentions varargs, kwargs and caller.
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
  Block body;
  Block otherwise;
  /// Names that begin as undefined in the scope of body, and in that of otherwise: they
  /// are set there before they are read, and no scope around knows them
  /// (jinja_scopes.h).
  std::vector<std::string> hidden;
  std::vector<std::string> hidden_otherwise;
};

/// The template as a statement of kind kGroup. Throws Error with the line for syntax
/// that is malformed or not supported.
Statement parse_template(std::string_view text);

}  // namespace orrery::text::jinja
