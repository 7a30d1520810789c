// Every construct of the template language once. Expected texts come from Python's
// jinja2 3.1, set up as Hugging Face transformers does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/text/tokenizer_fixtures.h"
#include "text/chat_template.h"

namespace orrery::text {
namespace {

using testing::HasSubstr;

const std::vector<ChatMessage>& conversation() {
  static const std::vector<ChatMessage> kMessages = [] {
    std::vector<ChatMessage> messages;
    for (const auto& message : OrderedJson::parse(R"([
           {"role": "system", "content": " Be brief. "},
           {"role": "user", "content": "\u00dcn\u00ef <b>&</b>\n2nd", "name": "Ann"},
           {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "f",
             "arguments": {"z": 1, "a": [1.5, null, true], "s": "\u00e9\""}}}]},
           {"role": "tool", "content": "t"}])"))
      messages.push_back(chat_message_from_json(message, "test"));
    return messages;
  }();
  return kMessages;
}

ChatTemplate jinja_template(const std::string& jinja, const OrderedJson& variables = {}) {
  return {jinja, "test.jinja", {{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}}, variables};
}

struct Rendered {
  std::string jinja, text;
};

void expect_rendered(const std::vector<Rendered>& cases) {
  for (const Rendered& c : cases) {
    try {
      // The conversations that a template is tried on when it is read are shorter.
      const bool long_only = c.jinja.find("messages[2]") != std::string::npos;
      const std::string jinja =
          (long_only ? "{% if messages|length < 4 %}{{ raise_exception('short') }}{% endif %}"
                     : "") +
          c.jinja;
      EXPECT_EQ(jinja_template(jinja).render(conversation()), c.text) << c.jinja;
    } catch (const Error& error) {
      ADD_FAILURE() << c.jinja << "\n" << error.what();
    }
  }
}

std::string render_error(const std::string& jinja) {
  try {
    jinja_template(jinja).render(conversation());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Jinja, ValuesAsPython) {
  expect_rendered({
      {R"J({{ 1.5 }} {{ 2.0 }} {{ 1e3 }} {{ 1e-7 }} {{ 1e22 }} {{ 0.1 + 0.2 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }})J",
       R"J(1.5 2.0 1000.0 1e-07 1e+22 0.30000000000000004 1000 31 5 15)J"},
      {R"J({{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 // -2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }})J",
       R"J(3.5 -4 2 -4 3.0 0.5 1024 0.5 4 64)J"},
      {R"J({{ True + 1 }} {{ 1 == 1.0 == true }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' < 'b' <= 'b' }} {{ [1, 2] < [1, 3] }} {{ (1, 'a') < (1, 'b') }})J",
       R"J(2 True True False True True True)J"},
      {R"J({{ (1, 2) }} {{ (1,) }} {{ () }} {{ 1, 2 }} {{ (1, 2) == [1, 2] }} {{ (1, 2) + (3,) }} {{ [0] * 3 }} {{ 'ab' * 2 }})J",
       R"J((1, 2) (1,) () (1, 2) False (1, 2, 3) [0, 0, 0] abab)J"},
      {R"J({{ {'a': 1, 'b': 2, 'a': 3} }} {{ {1: 'x', 1.0: 'y', true: 'z'} }} {{ {(1, 2): 'pair'}[(1, 2)] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }})J",
       R"J({'a': 3, 'b': 2} {1: 'z'} pair True)J"},
      {R"J({{ messages[0] == {'content': ' Be brief. ', 'role': 'system'} }} {{ messages[0] == messages[1] }} {{ messages[1] in messages }} {{ messages.index(messages[2]) }})J",
       R"J(True False True 2)J"},
      {R"J({{ [1, none, true, 'q', "it's", 'a"b', 'n\n', 1.5, [], {}] }} {{ ['é', '\u200b'] }} {{ none }} {{ [missing] }})J",
       R"J([1, None, True, 'q', "it's", 'a"b', 'n\n', 1.5, [], {}] ['é', '\u200b'] None [Undefined])J"},
      {R"J({{ 'a' 'b' }} {{ 'a\x41\u00e9\101\q\'' }} {{ "t\tn\n" }})J",
       "ab aA\303\251A\\q' t\tn\n"},
      {R"J({{ 'x' ~ 1 ~ none ~ 1.0 }} {{ 'a' in 'abc' }} {{ 2 not in [1, 2] }} {{ 'role' in messages[0] }})J",
       R"J(x1None1.0 True False True)J"},
      {R"J({{ 'abcdef'[1:4] }} {{ 'abcdef'[::-2] }} {{ [1, 2, 3][-2:] }} {{ 'né'[1] }} {{ [1, 2][5] }} {{ 'ab'.0 }} {{ range(10)[2:8:3]|list }} {{ (1, 2, 3)[::-1] }})J",
       R"J(bcd fdb [2, 3] é  a [2, 5] (3, 2, 1))J"},
      {R"J({{ range(3) }} {{ range(5, 0, -2)|list }} {{ 3 in range(4) }} {{ range(4)|length }} {{ dict(a=1, b=2) }} {{ dict([('k', 'v')]) }})J",
       R"J(range(0, 3) [5, 3, 1] True 4 {'a': 1, 'b': 2} {'k': 'v'})J"},
      {R"J({{ missing }}{{ missing is defined }}{{ missing|length }}{{ missing|list }}{{ missing == other }}{{ 'a' in missing }}{{ not missing }}{% for x in missing %}x{% endfor %})J",
       R"J(False0[]TrueFalseTrue)J"},
      {R"J({{ 'a' if missing }}|{{ 'a' if 0 else 'b' }}|{{ 1 and 0 }}|{{ '' or 'x' }}|{{ not 1 }}|{{ none and missing.x }})J",
       R"J(|b|0|x|False|None)J"},
  });
}

TEST(Jinja, MembersAsPython) {
  expect_rendered({
      {R"J({{ messages[2].tool_calls[0].function.name }} {{ messages[2]['tool_calls'][0]['function']['arguments']['a'][0] }} {{ messages[0].nope }}{{ messages[0].nope is undefined }})J",
       R"J(f 1.5 True)J"},
      {R"J({{ {'items': 1}['items'] }} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %} {{ {'a': 1}.keys() }} {{ {'a': 1}.values()|list }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }})J",
       R"J(1 a1b2 dict_keys(['a']) [1] None 2)J"},
      {R"J({{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ 'a b c'.rsplit(' ', 1) }}|{{ 'a\nb\r\nc'.splitlines() }}|{{ 'a\nb'.splitlines(true) }})J",
       R"J(a b|a|['a', 'b,c']|['a', 'b']|['a b', 'c']|['a', 'b', 'c']|['a\n', 'b'])J"},
      {R"J({{ 'abc'.startswith('a') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcb'.find('b') }} {{ 'abcb'.rfind('b') }} {{ 'abcb'.count('b') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ ', '.join(['a', 'b']) }})J",
       R"J(True True 1 3 2 a-bX a, b)J"},
      {R"J({{ 'hello wORLD'.title() }} {{ 'hello'.capitalize() }} {{ 'aß'.upper() }} {{ 'ÀÉ'.lower() }} {{ 'aB'.swapcase() }} {{ 'ΑΣ'.lower() }} {{ 'ﬁ'.upper() }})J",
       R"J(Hello World Hello ASS àé Ab ας FI)J"},
      {R"J({{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'Ab'.istitle() }} {{ ' '.isspace() }} {{ 'a'.isupper() }} {{ 'é'.isalpha() }} {{ 'é'.isascii() }})J",
       R"J(True True True True False True False)J"},
      {R"J({{ '7'.zfill(3) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ 'a'.center(4, '*') }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'unhappy'.removeprefix('un') }} {{ 'a.py'.removesuffix('.py') }})J",
       R"J(007 a..   a *a** ('a', '=', 'b=c') ('a=b', '=', 'c') happy a)J"},
      {R"J({{ '{} {}'.format('a', 'b') }} {{ '{0:>4}|{x!r}|{1:.2f}|{2:,}'.format('a', 1.0, 12345, x='q') }})J",
       R"J(a b    a|'q'|1.00|12,345)J"},
      {R"J({{ '%s %d %5.1f %x %r %-3s| %%' % ('a', 3, 1.25, 255, 'q', 'z') }} {{ '%(k)s' % {'k': 'v'} }} {{ '%05d' % 42 }} {{ '%s' % 5 }})J",
       R"J(a 3   1.2 ff 'q' z  | % v 00042 5)J"},
      {R"J({{ [1, 2, 1].count(1) }} {{ ('a', 'b').index('b') }} {{ '\u00a0x\u2003'.strip() }}| {{ '\u00a0x\u3000'|trim }}|)J",
       R"J(2 1 x| x|)J"},
  });
}

TEST(Jinja, FiltersAsPython) {
  expect_rendered({
      {R"J({{ 'a b'|title }} {{ "it's o-k (x) a/b"|title }} {{ 'aBC'|capitalize }} {{ 'x'|upper }} {{ 'X'|lower }} {{ 5|string ~ 1 }} {{ '  a '|trim }} {{ 'xax'|trim('x') }})J",
       R"J(A B It's O-K (X) A/b Abc X x 51 a a)J"},
      {R"J({{ messages|map(attribute='role')|join(', ') }} {{ messages|map(attribute='name', default='-')|list }} {{ ['a', 'b']|map('upper')|list }} {{ [[3, 1], [2]]|map('first')|list }} {{ ['1', 'x']|map('int', 7)|list }})J",
       R"J(system, user, assistant, tool ['-', 'Ann', '-', '-'] ['A', 'B'] [3, 2] [1, 7])J"},
      {R"J({{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('name')|map(attribute='role')|list }} {{ messages|selectattr('tool_calls', 'defined')|map(attribute='role')|first }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 0, 2]|reject|list }} {{ [1, 5]|select('gt', 2)|list }})J",
       R"J(1 ['system', 'assistant', 'tool'] assistant [1, 3] [0] [5])J"},
      {R"J({{ (messages|selectattr('role', 'equalto', 'nobody')) is defined }}{% if messages|selectattr('role', 'eq', 'nobody') %}generators are true{% endif %} {% set g = [1, 2]|map('string') %}{{ g|join }}{{ g|join }}.)J",
       R"J(Truegenerators are true 12.)J"},
      {R"J({{ messages[2].tool_calls[0].function.arguments|tojson }} {{ {'b': [1, {}], 'a': []}|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'é\u2028\x01/<'|tojson }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ (1.0, none, true)|tojson }} {{ {1: 'a', none: 'b'}|tojson }} {{ []|tojson(indent=2) }})J",
       "{\"z\": 1, \"a\": [1.5, null, true], \"s\": \"\303\251\\\"\"} {\n"
       "  \"b\": [\n"
       "    1,\n"
       "    {}\n"
       "  ],\n"
       "  \"a\": []\n"
       "} {\"a\": 2, \"b\": 1} \"\303\251\342\200\250\\u0001/<\" \"\\u00e9\\ud83d\\ude00\" [1,2] "
       "[1.0, null, true] {\"1\": \"a\", \"null\": \"b\"} []"},
      {R"J({{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|sort(case_sensitive=true) }} {{ [1, 2]|sort(reverse=true) }} {{ messages|sort(attribute='role')|map(attribute='role')|join(' ') }} {{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }})J",
       R"J([1, 2, 3] ['A', 'b', 'c'] ['A', 'b'] [2, 1] assistant system tool user [('A', 2), ('b', 1)] [('b', 1), ('a', 2)])J"},
      {R"J({{ [1, 2, 3, 4, 5]|batch(2, 'x')|list }} {{ [1, 2, 3, 4, 5]|slice(2)|list }} {{ ['a', 'A', 'b']|unique|list }} {{ [1, 2]|sum }} {{ messages|groupby('role')|map(attribute='grouper')|list }} {{ [3, 1]|min }} {{ ['b', 'A']|max }} {{ 'abc'|reverse }} {{ [1, 2]|reverse|list }})J",
       R"J([[1, 2], [3, 4], [5, 'x']] [[1, 2, 3], [4, 5]] ['a', 'b'] 3 ['assistant', 'system', 'tool', 'user'] 1 b cba [2, 1])J"},
      {R"J({{ missing|default('d') }} {{ ''|default('d') }}|{{ ''|default('d', true) }} {{ none|d('d') }} {{ [1, 2]|first }} {{ [1, 2]|last }} {{ []|first }}| {{ {'a': 1}|items|list }} {{ {'a': 1}|length }} {{ 'é'|count }} {{ 'ab'|list }})J",
       R"J(d |d None 1 2 | [('a', 1)] 1 1 ['a', 'b'])J"},
      {R"J({{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent('> ', blank=true) }}| {{ 'a b c'|replace(' ', '_', 1) }} {{ 5|replace(5, 'x') }} {{ 'one two three'|truncate(9, leeway=0) }} {{ 'x'|center(5) }}| {{ 'a b-c'|wordcount }})J",
       R"J(a
    b

    c|  a
  b|a
> 
> b| a_b c x one...   x  | 3)J"},
      {R"J({{ '42'|int }} {{ '4.7'|int }} {{ 'x'|int(9) }} {{ '0x1A'|int(base=16) }} {{ '1.5'|float }} {{ 'x'|float }} {{ 2.5|round }} {{ 2.675|round(2) }} {{ 1.21|round(1, 'ceil') }} {{ 7|round }} {{ -3|abs }} {{ '%s-%s'|format('a', 1) }} {{ 'a b/ü'|urlencode }} {{ {'a b': 'c&d'}|urlencode }} {{ 12345|filesizeformat }})J",
       R"J(42 4 9 26 1.5 0.0 2.0 2.67 1.3 7 3 a-1 a%20b/%C3%BC a+b=c%26d 12.3 kB)J"},
      {R"J({{ '<b>'|e }} {{ '<b>'|safe }} {{ ('<'|safe) + '<' }} {{ '<'|safe ~ '<' }} {{ ['<'|e, 'a']|join('>') }} {{ ('<b>'|safe)|upper }} {{ messages[0]|attr('content') }}| {{ 'ab'|attr('upper') is callable }})J",
       R"J(&lt;b&gt; <b> <&lt; << &lt;>a <B> | True)J"},
  });
}

TEST(Jinja, TestsAsPython) {
  expect_rendered({
      {R"J({{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }})J",
       R"J(True False True True True True True True True False True)J"},
      {R"J({{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ {} is sequence }} {{ {}.items() is sequence }} {{ missing is sequence }} {{ none is none }} {{ missing is none }})J",
       R"J(True True True True False True False True True False)J"},
      {R"J({{ 1 is eq 1 }} {{ 1 is ne 1 }} {{ 2 is gt 1 }} {{ 2 is lt(1) }} {{ 1 is ge 1 }} {{ 1 is le 0 }} {{ 1 is in [1] }} {{ 'x' is not in 'ab' }} {{ 'a' is lower }} {{ 'a' is upper }} {{ none is sameas none }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }})J",
       R"J(True False True False True False True True True False True True True True)J"},
  });
}

TEST(Jinja, StatementsAsPython) {
  expect_rendered({
      {R"J({% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ (loop.previtem or m).role }}{{ (loop.nextitem or m).role }}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role == 'user') }}{{ loop.nope }};{% endfor %})J",
       R"J(1043TrueFalse410systemuseraTrue;2132FalseFalse410systemassistantbTrue;3221FalseFalse410usertoolaTrue;4310FalseTrue410assistanttoolbFalse;)J"},
      {R"J({% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for x in [1, 2, 3] if x != 2 %}{{ x }}/{{ loop.length }} {% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}{% for x in [1, 2] %}{% continue %}{% else %}!{% endfor %}{% for x in [1, 2] %}{{ x }}{% break %}{% else %}?{% endfor %})J",
       R"J(1231/2 3/2 empty!1?)J"},
      {R"J({% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}@{{ loop.depth }}{{ loop(n.c) }}{% endfor %})J",
       R"J(1@12@2)J"},
      {R"J({% macro f(a, b='B', c=a) %}[{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}]{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{{ f(1, 2, 3, 4, 5) }}{{ f(1, k='v') }}{{ f(*[1, 2]) }}{{ f(**{'a': 9}) }}{{ f() }})J",
       R"J([1B1(){}][1B2(){}][123(4, 5){}][1B1(){'k': 'v'}][121(){}][9B9(){}][B(){}])J"},
      {R"J({% macro outer(x) %}<{{ caller(x) }}|{{ caller(2) }}>{% endmacro %}{% call(y) outer(1) %}in {{ y }}{% endcall %}{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}{% macro late() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ late() }})J",
       R"J(<in 1|in 2>3210L)J"},
      {R"J({% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set inner = i %}{% endfor %}{{ ns.a }}{{ ns['b'] }}{{ ns.nope is defined }}{{ inner is defined }}{% set x, y = 1, (2, 3) %}{{ x }}{{ y[1] }}{% set block %}a{{ x }}{% endset %}{{ block }}{% set up | upper | replace('A', 'b') %}aa{% endset %}{{ up }})J",
       R"J(4xFalseFalse13a1bb)J"},
      {R"J({% with a = 1, b = 2 %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ a is defined }}{{ c is defined }}{% filter upper %}x{{ 'y' }}{% endfilter %}{% generation %}g{% set z = 1 %}{% endgeneration %}{{ z is defined }}{% print 'p', 1 %})J",
       R"J(12FalseFalseXYgFalsep1)J"},
      {R"J({% raw %}{{ x }} {% if %} {# c #}{% endraw %}|{%- raw -%}  {{ y }}  {%- endraw -%}  |{% if false %}{% elif 1 %}e{% else %}f{% endif %})J",
       R"J({{ x }} {% if %} {# c #}|{{ y }}|e)J"},
      {R"J({% for m in messages %}{{ tools }}{% endfor %}{% set tools = 1 %}{{ tools }})J",
       R"J(1)J"},
      {R"J({% if true %}{% set v = 1 %}{% endif %}{{ v }}{% for i in [1] %}{{ v }}{% set v = 2 %}{{ v }}{% endfor %}{{ v }}{% set j = joiner('/') %}{{ j() }}{{ j() }}{{ self.x }})J",
       R"J(1121/)J"},
  });
}

TEST(Jinja, WhitespaceAsPython) {
  expect_rendered({
      {"  {% if true %}  \n"
       "  a\n"
       "  {%- set q = 1 -%}  \n"
       " b \302\240{%- endif %}\n"
       "\n"
       "{{ 'x' -}}\n"
       "\342\200\203 y {#- c -#} \343\200\200z\n",
       "  \n  ab\nxyz"},
      {"\t{%+ if true %}x{% endif +%}\n y\n\n  {# comment #}  \n\302\240{% if true %}q{% endif %}",
       "\tx\n y\n\n  \nq"},
      {"a\r\nb\r{% if true %}\r\nc{% endif %}\n\n",
       R"J(a
b
c)J"},
      {R"J({{ {'a': {'b': 1}}['a']['b']}}{{ '{%' }}{%- if '%}' == '%}' %} ok{% endif %})J",
       R"J(1{% ok)J"},
  });
}

TEST(Jinja, DigitsOfEveryScriptAreNumbers) {
  expect_rendered(
      {{"{{ '\u0661\u0662'|int }} {{ '\uff14.\uff15'|float }} {{ '\U0001d7d8\U0001d7e3'|int }}",
        "12 4.5 1"}});
}

TEST(Jinja, WhatPythonRaisesIsAnError) {
  for (const char* jinja : {"{{ 1 + 'a' }}",
                            "{{ 'a' + 1 }}",
                            "{{ 1 < 'a' }}",
                            "{{ none + 1 }}",
                            "{{ missing.x }}",
                            "{{ missing + 1 }}",
                            "{{ missing() }}",
                            "{{ 'a' * missing }}",
                            "{{ [1] + (2,) }}",
                            "{{ {[1]: 2} }}",
                            "{{ 5 in 5 }}",
                            "{{ 1 in 'a' }}",
                            "{{ 5|length }}",
                            "{{ 5|list }}",
                            "{{ ([1]|map('string'))|length }}",
                            "{{ ([1]|select)|last }}",
                            "{{ [1, 'a']|sort }}",
                            "{{ ['a']|sum }}",
                            "{{ missing|tojson }}",
                            "{{ {}.items()|tojson }}",
                            "{{ {(1, 2): 3}|tojson }}",
                            "{{ 'a'|round }}",
                            "{{ [1]|join(attribute='x.y') }}",
                            "{{ 'a'.join([1]) }}",
                            "{{ 'abc'.index('z') }}",
                            "{{ 'a'.split('') }}",
                            "{{ [1].append(2) }}",
                            "{{ {}.update({}) }}",
                            "{{ messages.pop() }}",
                            "{{ ''.nope() }}",
                            "{{ '%d' % 'a' }}",
                            "{{ '%s %s' % 'a' }}",
                            "{{ 'a' % 1 }}",
                            "{{ '{}'.format() }}",
                            "{% set x, y = [1] %}",
                            "{% for a, b in ['abc'] %}{% endfor %}",
                            "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
                            "{% macro f(a) %}{% endmacro %}{{ f(b=2) }}",
                            "{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}",
                            "{% for i in [1] %}{{ loop([2]) }}{% endfor %}",
                            "{% set ns = namespace(_x=1) %}",
                            "{{ range(0, 1, 0) }}",
                            "{{ range(100001) }}",
                            "{{ 'a' is odd }}",
                            "{{ 1 // 0 }}",
                            "{{ 1.5 % 0 }}",
                            "{{ 0 ** -1 }}",
                            "{{ 'a'|tojson(nope=1) }}",
                            "{{ 'a'|trim('b', 'c') }}",
                            "{{ [1]|attr }}",
                            "{% filter length %}a{% endfilter %}",
                            "{% if 1 == 1 == %}{% endif %}",
                            "{{ x is }}",
                            "{% for loop.x in [1] %}{% endfor %}",
                            "{% set true = 1 %}",
                            "{{ f(a=1, 2) }}",
                            "{{ 1 is odd is even }}",
                            "{{ (1 }}",
                            "{{ [1) }}",
                            "{% generation %}{% break %}{% endgeneration %}",
                            "{% raw %}",
                            "{% endraw %}",
                            "{% macro f(a=1, b) %}{% endmacro %}",
                            "{% call 5 %}{% endcall %}",
                            "{{ 'a' 5 }}",
                            "{{ a.b.5c }}"})
    EXPECT_NE(render_error(jinja), "") << jinja;
}

TEST(Jinja, WhatIsNotSupportedIsNamed) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"{{ 'a'|pprint }}", "the filter pprint is not supported"},
      {"{{ [1]|random }}", "the filter random is not supported"},
      {"{{ 'a'|wordwrap }}", "the filter wordwrap is not supported"},
      {"{{ [1]|map('urlize')|list }}", "the filter urlize is not supported"},
      {"{{ 1 is prime }}", "the test prime is not supported"},
      {"{{ 'a'.encode() }}", "the method encode of strings is not supported"},
      {"{{ cycler(1) }}", "the function cycler is not supported"},
      {"{{ lipsum() }}", "the function lipsum is not supported"},
      {"{{ [1]|map('string') }}", "printing an iterator is not supported"},
      {"{{ 'a'.upper }}", "printing a function is not supported"},
      {"{% block a %}{% endblock %}", "the tag \"block\" is not supported"},
      {"{% include 'x' %}", "the tag \"include\" is not supported"},
      {"{% autoescape true %}{% endautoescape %}", "the tag \"autoescape\" is not supported"},
      {"{% do x %}", "the tag \"do\" is not supported"},
      {"{{ '\\N{BULLET}' }}", "the escape \\N in a string is not supported"},
  };
  for (const auto& [jinja, message] : cases)
    EXPECT_THAT(render_error(jinja), HasSubstr(message)) << jinja;
}

TEST(Jinja, HostileTemplatesEndInAnError) {
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"{{ 'x' * 10 ** 9 }}", "too large"},
      {"{{ [1] * 10 ** 9 }}", "too large"},
      {"{{ 'x'.center(10 ** 9) }}", "too large"},
      {"{{ 'x'.ljust(10 ** 18) }}", "too large"},
      {"{{ '%1000000000d' % 1 }}", "not supported"},
      {"{{ '{:>1000000000}'.format(1) }}", "not supported"},
      {"{{ 'a'|indent(10 ** 9, true) }}", "too large"},
      {"{{ {}|tojson(indent=10 ** 9) }}", "not supported"},
      {"{{ [1]|batch(10 ** 9, 0)|list }}", "too large"},
      {"{{ [1]|slice(10 ** 9)|list }}", "too large"},
      {"{{ 10 ** 1000 }}", "too large"},
      {"{{ ('ab' * 8000000).replace('a', 'xxxxxxxx') }}", "too large"},
      {"{{ (['a' * 1000000] * 1000)|join }}", "too large"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deep"},
      {"{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "nested too deep"},
      {"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
       "does not come to an end"},
      {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested too deep"},
      {"{% set n = namespace(x=[1, 2]) %}{% for i in range(1000) %}{% set n.x = n.x|map('string') "
       "%}{% endfor %}",
       "nested too deep"},
      {"{% set n = namespace(x='a') %}{% for i in range(1000) %}{% set n.x = n.x.upper %}{% endfor "
       "%}{{ n.x }}",
       ""},
      {"{% set n = namespace(x=0) %}{% for i in [1] %}{% set n.l = loop %}{% endfor %}{{ n.l.index "
       "}}",
       ""},
      {"{% set n = namespace() %}{{ [n] }}", "a namespace inside"},
      {"{% set n = namespace() %}{{ [1]|map('default', n)|list }}", "a namespace inside"},
      {"{% set n = namespace() %}{% for i in [1] %}{{ loop.changed(n) }}{% endfor %}",
       "a namespace inside"},
      {"{% for a in range(100000) %}{% for b in range(100000) %}{{ [a, "
       "b]|sort|join }}{% endfor %}{% endfor %}",
       "does not come to an end"},
      {"{{ (range(99999)|list * 10)|sort(reverse=true)|unique|list|length }}",
       "does not come to an end"},
  };
  for (const auto& [jinja, message] : cases)
    EXPECT_THAT(render_error(jinja), HasSubstr(message)) << jinja;
}

TEST(Jinja, NamesThatJinjaRefusesToAssign) {
  for (const char* jinja :
       {"{% for loop in [1] %}{{ loop }}{% endfor %}", "{% for a, loop in [[1, 2]] %}{% endfor %}",
        "{% for (a, (loop, b)) in [] %}{% endfor %}",
        "{% for x in [1] %}{% set loop = 2 %}{% endfor %}",
        "{% for x in [1] %}{% if x %}{% set a, loop = 1, 2 %}{% endif %}{% endfor %}",
        "{% for x in [1] %}{% else %}{% set loop = 2 %}{% endfor %}",
        "{% for x in [1] %}{% macro f() %}{% set loop = 2 %}{% endmacro %}{% endfor %}"}) {
    EXPECT_THAT(render_error(jinja), HasSubstr("loop")) << jinja;
  }
  for (const char* jinja :
       {"{% macro f(a, a) %}{% endmacro %}", "{% macro f(a, b=1, a=2) %}{% endmacro %}",
        "{% macro f() %}{% endmacro %}{% call(a, a) f() %}{% endcall %}",
        "{% macro f(a) %}{% endmacro %}{{ f(a=1, a=2) }}", "{{ 'x'|default(a=1, a=2) }}"}) {
    EXPECT_THAT(render_error(jinja), HasSubstr("twice")) << jinja;
  }
  // As jinja2 takes them.
  for (const char* jinja :
       {"{% set loop = 3 %}{{ loop }}", "{% macro f(loop) %}{{ loop }}{% endmacro %}{{ f(1) }}",
        "{% for a, a in [[1, 2]] %}{{ a }}{% endfor %}",
        "{% set n = namespace() %}{% for x in [1] %}{% set n.loop = 2 %}{% endfor %}"}) {
    EXPECT_EQ(render_error(jinja), "") << jinja;
  }
}

TEST(Jinja, TheDateIsGivenOrMissing) {
  EXPECT_THAT(render_error("{{ strftime_now('%Y') }}"), HasSubstr("strftime_now=2025-07-26"));
  const OrderedJson date = {{"strftime_now", "2025-07-26"}};
  EXPECT_EQ(jinja_template("{{ strftime_now('%d %B %Y, %A') if strftime_now is defined }}", date)
                .render(conversation()),
            "26 July 2025, Saturday");
  for (const char* wrong :
       {"yesterday", "2025-02-30", "2025-02-29", "2025-04-31 10:00:00", "2025-13-01", "2025-00-10",
        "2025-01-00", "2025-01-01 25:00:00", "2025-01-01 10:00:60"}) {
    EXPECT_THROW(jinja_template("{{ strftime_now('%Y') }}", {{"strftime_now", wrong}}), Error)
        << wrong;
  }
  EXPECT_NO_THROW(jinja_template("{{ strftime_now('%Y') }}", {{"strftime_now", "2024-02-29"}}));
}

TEST(Jinja, VariablesAreOfAnyKindAndOfTwoTheNearestCounts) {
  const ChatTemplate chat = jinja_template("{{ a }} {{ b.c[0] }} {{ bos_token }} {{ d is none }}",
                                           {{"a", 1.5}, {"b", {{"c", {false}}}}, {"d", nullptr}});
  EXPECT_EQ(chat.render(conversation()), "1.5 False <BOS> True");
  ChatOptions options;
  options.variables = {{"a", 2}, {"bos_token", "<other>"}};
  EXPECT_EQ(chat.render(conversation(), options), "2 False <other> True");
  EXPECT_THROW(jinja_template("x", {{"messages", 1}}), Error);
}

TEST(ChatMessage, KeepsEveryKeyInItsOrder) {
  const auto render = [](const char* json) {
    const ChatMessage message = chat_message_from_json(OrderedJson::parse(json), "row");
    return jinja_template("{% for m in messages %}{{ m|tojson }}{% endfor %}")
        .render(std::vector<ChatMessage>{message});
  };
  EXPECT_EQ(render(R"({"role": "user", "content": "a"})"), R"({"role": "user", "content": "a"})");
  EXPECT_EQ(render(R"({"content": "a", "role": "user"})"), R"({"content": "a", "role": "user"})");
  EXPECT_EQ(render(R"({"role": "assistant", "tool_calls": [{"b": 1, "a": null}], "name": "n"})"),
            R"({"role": "assistant", "tool_calls": [{"b": 1, "a": null}], "name": "n"})");
  // As transformers: keys that are null are left out, reasoning has two names.
  EXPECT_EQ(render(R"({"role": "assistant", "content": null})"), R"({"role": "assistant"})");
  EXPECT_EQ(
      render(R"({"role": "assistant", "content": "c", "reasoning": "r"})"),
      R"({"thinking": "r", "role": "assistant", "content": "c", "reasoning": "r", "reasoning_content": "r"})");
  EXPECT_EQ(render(R"({"role": "user", "content": [{"type": "text", "text": "t"}]})"),
            R"({"role": "user", "content": [{"type": "text", "text": "t"}]})");
  for (const char* bad : {R"({"content": "a"})", R"({"role": 1, "content": "a"})",
                          R"({"role": "user", "content": 5})", R"(["role"])"})
    EXPECT_THROW(chat_message_from_json(OrderedJson::parse(bad), "row"), Error) << bad;
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_THROW(chat_message_from_json(
                   OrderedJson::parse(R"({"role": "user", "content": )" + deep + "}"), "row"),
               Error);
  EXPECT_THROW(chat_messages_from_json(OrderedJson::array(), "row"), Error);
  ChatMessage edited{"user", "a", {{"name", "n"}}};
  EXPECT_EQ(jinja_template("{{ messages[0]|tojson }}").render(std::vector<ChatMessage>{edited}),
            R"({"role": "user", "content": "a", "name": "n"})");
}

TEST(ChatTemplate, ToolsGoThroughTheTemplateForThem) {
  nlohmann::json tokenizer = testing_support::sentencepiece_tokenizer();
  const std::vector<ChatMessage> messages = {{"user", "a", {}}};
  ChatOptions with_tools;
  with_tools.tools = OrderedJson::array();
  const testing_support::TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer.dump());
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "plain"},
    {"name": "tool_use", "template": "tools {{ tools }}"}]})");
  const ChatTemplate listed(Tokenizer::load(folder.path()));
  EXPECT_EQ(listed.render(messages), "plain");
  EXPECT_EQ(listed.render(messages, with_tools), "tools []");
  folder.write("chat_template.jinja", "file {{ tools is none }}");
  const ChatTemplate file(Tokenizer::load(folder.path()));
  EXPECT_EQ(file.render(messages, with_tools), "file False");
  std::filesystem::create_directory(folder.path() / "additional_chat_templates");
  folder.write("additional_chat_templates/tool_use.jinja", "file for tools");
  const ChatTemplate both(Tokenizer::load(folder.path()));
  EXPECT_EQ(both.render(messages), "file True");
  EXPECT_EQ(both.render(messages, with_tools), "file for tools");
}

}  // namespace
}  // namespace orrery::text
