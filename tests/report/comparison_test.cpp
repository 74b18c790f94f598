#include "lowbit/report/comparison.h"

#include <gtest/gtest.h>

namespace lowbit {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

ComparisonRow row(const std::string& name, double mib, double perplexity) {
  ComparisonRow row;
  row.name = name;
  row.format = "gptq";
  row.file_mib = mib;
  row.perplexity = perplexity;
  return row;
}

Comparison example() {
  Comparison comparison;
  comparison.title = "Weight-only";
  comparison.conditions = {{"Source", "model"}};
  comparison.rows = {row("model", 100, 20), row("a", 40, 24), row("b", 50, 25), row("c", 60, 22)};
  comparison.rows[0].source = true;
  comparison.rows[1].block_errors = {0.1, 0.2};
  comparison.rows[1].layer_errors = {{"model.layers.0.mlp.up_proj", 0.1}};
  comparison.rows[2].decode_tok_s = 10;
  return comparison;
}

TEST(Comparison, TextHasTheColumnsThatHaveValues) {
  const std::string text = comparison_text(example());
  EXPECT_TRUE(contains(text, "perplexity")) << text;
  EXPECT_TRUE(contains(text, "+20.00 %")) << text;  // 24 against 20
  EXPECT_TRUE(contains(text, "–")) << text;
  EXPECT_FALSE(contains(text, "KL")) << text;
  EXPECT_FALSE(contains(text, "loads in")) << text;
}

TEST(Comparison, CsvQuotesWhatNeedsItAndDefusesFormulas) {
  Comparison comparison = example();
  comparison.rows[1].loads_in = "vLLM, \"lowbit\"";
  comparison.rows[2].notes = {"=HYPERLINK(1)"};
  const std::string csv = comparison_csv(comparison);
  EXPECT_TRUE(contains(csv, "method,format,bits_per_weight,file_mib,")) << csv;
  EXPECT_TRUE(contains(csv, "\"vLLM, \"\"lowbit\"\"\"")) << csv;
  EXPECT_TRUE(contains(csv, "\"'=HYPERLINK(1)\"\r\n")) << csv;
  EXPECT_TRUE(contains(csv, "a,gptq,,40.000000,,,24.000000,20.000000,,,,,")) << csv;
  EXPECT_FALSE(contains(csv, "nan")) << csv;
}

TEST(Comparison, MarkdownEscapesItsOwnLetters) {
  Comparison comparison = example();
  comparison.rows[1].loads_in = "a|b <script> *c*\nd";
  const std::string text = comparison_markdown(comparison);
  EXPECT_TRUE(contains(text, "# Weight-only\n")) << text;
  EXPECT_TRUE(contains(text, "a\\|b \\<script\\> \\*c\\* d")) << text;
  EXPECT_TRUE(contains(text, "|---:|")) << text;
}

TEST(Comparison, JsonHasNullForWhatWasNotMeasured) {
  const OrderedJson json = comparison_json(example());
  EXPECT_EQ(json["rows"].size(), 4u);
  EXPECT_TRUE(json["rows"][1]["kl"].is_null());
  EXPECT_EQ(json["rows"][1]["layers"][0]["relative_error"], 0.1);
  EXPECT_TRUE(json["rows"][0]["source"].get<bool>());
}

TEST(Comparison, HtmlNeedsNothingFromOutside) {
  const std::string html = comparison_html(example());
  for (const char* part : {"src=", "href=", "url(", "@import", "nan", "<link", "<img"}) {
    EXPECT_FALSE(contains(html, part)) << part;
  }
  // The only address is the name of SVG.
  for (size_t at = 0; (at = html.find("http", at)) != std::string::npos; ++at) {
    const std::string found = html.substr(at, 26);
    EXPECT_TRUE(found == "http://www.w3.org/2000/svg" || found.rfind("http-equiv", 0) == 0)
        << found;
  }
  EXPECT_TRUE(contains(html, "prefers-color-scheme: dark"));
  EXPECT_TRUE(contains(html, "@media print"));
  EXPECT_TRUE(contains(html, "<td class=\"number best\" data-sort=\"22\">22.000</td>"));
  // The smallest, and those that are better and larger; b is neither.
  EXPECT_TRUE(contains(html, "Pareto line"));
}

TEST(Comparison, HtmlEscapesAllText) {
  const std::string evil = "<script>alert(\"1\")</script>'&";
  Comparison comparison = example();
  comparison.title = comparison.description = evil;
  comparison.conditions = {{evil, evil}};
  for (ComparisonRow& one : comparison.rows) {
    one.name = one.description = one.format = one.loads_in = evil;
    one.notes = {evil};
  }
  const std::string html = comparison_html(comparison);
  EXPECT_FALSE(contains(html, "<script>alert"));
  EXPECT_FALSE(contains(html, "\"1\")"));
  EXPECT_TRUE(contains(html, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;"));
}

TEST(Comparison, HtmlOfNothingIsAPageToo) {
  EXPECT_TRUE(contains(comparison_html({}), "</html>"));
  Comparison failed;
  failed.rows = {row("x", kNotMeasured, kNotMeasured)};
  failed.rows[0].failed = true;
  failed.rows[0].notes = {"no memory"};
  EXPECT_TRUE(contains(comparison_html(failed), "no memory"));
}

}  // namespace
}  // namespace lowbit
