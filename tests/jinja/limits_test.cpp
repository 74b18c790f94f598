// Hostile templates end in a clear error, within bounded time and memory.
#include <gtest/gtest.h>

#include "lowbit/jinja/template.h"

namespace lowbit {
namespace {

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

std::string render(const std::string& source) { return jinja::Template(source).render({}); }

// The message of the kUnsupported error that rendering must end in.
std::string refusal(const std::string& source) {
  try {
    render(source);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "rendered: " << source.substr(0, 100);
  return "";
}

TEST(JinjaLimits, DeepSyntaxIsRefusedWithItsPosition) {
  EXPECT_NE(refusal("{{ " + repeated("(", 60'000) + "1" + repeated(")", 60'000) + " }}")
                .find("line 1, column "),
            std::string::npos);
  refusal("{{ " + repeated("[", 60'000) + repeated("]", 60'000) + " }}");
  refusal("{{ " + repeated("not ", 60'000) + "1 }}");
  refusal("{{ " + repeated("-", 60'000) + "1 }}");
  refusal("{{ 1" + repeated("+1", 60'000) + " }}");
  refusal("{{ x" + repeated(".a", 60'000) + " }}");
  refusal("{{ x" + repeated("|upper", 60'000) + " }}");
  refusal("{{ 1" + repeated(" if 1 else 1", 60'000) + " }}");
  refusal(repeated("{% if 1 %}", 10'000) + repeated("{% endif %}", 10'000));
  refusal("{% set " + repeated("(", 60'000) + "a" + repeated(")", 60'000) + " = 1 %}");
}

TEST(JinjaLimits, LongButFlatSyntaxIsFine) {
  EXPECT_EQ(render("{{ ''" + repeated(" ~ 'a'", 5'000) + " }}").size(), 5'000u);
  EXPECT_EQ(render(repeated("{{ 1 }}", 10'000)).size(), 10'000u);
  EXPECT_EQ(render("{% if 0 %}" + repeated("{% elif 0 %}", 10'000) + "{% endif %}"), "");
}

TEST(JinjaLimits, ManyNamesAreFine) {
  std::string source;
  for (int i = 0; i < 20'000; ++i) {
    source += concat("{% if x", i, " %}{% set y", i, " = 1 %}{% endif %}");
  }
  EXPECT_EQ(render(source), "");
}

TEST(JinjaLimits, EndlessWorkIsRefused) {
  refusal("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
  refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  refusal("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}");
  refusal("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
  refusal(
      "{% set s = 'ab' * 1000000 %}{% for a in range(99999) %}{{ s|length }}{{ s.replace('a', "
      "'b')|length }}{% endfor %}");
  refusal("{% set l = range(99999)|list %}{% for a in l %}{{ 'x' in l }}{% endfor %}");
}

TEST(JinjaLimits, LargeValuesAreRefused) {
  refusal("{{ 'a' * 1000000000 }}");
  refusal("{{ [0] * 1000000000 }}");
  refusal(
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s "
      "%}{% endfor %}");
  refusal(
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}");
  refusal(
      "{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('a', "
      "ns.s) %}{% endfor %}");
  refusal("{{ '%999999999d' % 1 }}");
  refusal("{{ '{:999999999}'.format(1) }}");
  refusal("{{ 'a'.center(999999999) }}");
  refusal("{{ 'a'|indent(999999999) }}");
  refusal("{{ [1]|batch(999999999, 1)|list }}");
  refusal("{{ 10 ** 100 }}");
  refusal("{{ strftime_now('%999999999d') }}");
  refusal("{% set s = 'a' * 16000000 %}{% for i in range(99) %}{{ s }}{% endfor %}");
  refusal(
      "{% set s = 'a' * 9000000 %}{% set ns = namespace(l=[]) %}{% for i in range(99) %}{% set "
      "ns.l = ns.l + [s ~ i] %}{% endfor %}");
}

// Values must not nest so deep that destroying them would overflow the stack.
TEST(JinjaLimits, DeepValuesAreRefused) {
  for (const char* wrap : {"[ns.x]", "(ns.x,)", "{1: ns.x}", "[ns.x]|reverse", "cycler(ns.x)",
                           "[ns.x].count", "{1: ns.x}.values()"}) {
    refusal(concat("{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = ", wrap,
                   " %}{% endfor %}"));
  }
}

TEST(JinjaLimits, CyclesOfReferencesAreReleased) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns.x.x.x is defined }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in range(20000) %}{% set old = ns.m %}{% "
                   "macro m() %}{{ old }}{% endmacro %}{% set ns.m = m %}{% endfor %}"),
            "");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in range(20000) %}{% for x in [ns.l] %}{{ "
                   "loop.changed(ns.l) and '' }}{% set ns.l = loop %}{% endfor %}{% endfor %}"),
            "");
  refusal("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}");
}

// Found by fuzzing.
TEST(JinjaLimits, SourcesThatEndInsideOfATagAreRefused) {
  for (const char* source : {"{% raw %} b {%- endraw", "{% raw %}{%", "{% raw -", "{# -", "{%",
                             "{%-", "{{", "{{-", "{{ 1 -", "{{ 'a\\", "{{ 0x", "{{ 1e", "{{ 1_"}) {
    EXPECT_THROW(render(source), Error) << source;
  }
}

TEST(JinjaLimits, OversizedAndInvalidSourcesAreRefused) {
  EXPECT_THROW(jinja::Template(std::string(limits::kTemplateBytes + 1, 'a')), Error);
  EXPECT_THROW(jinja::Template("\xff"), Error);
  EXPECT_THROW(jinja::Template("\xed\xa0\x80"), Error);
}

}  // namespace
}  // namespace lowbit
