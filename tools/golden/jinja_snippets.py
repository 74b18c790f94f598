#!/usr/bin/env python3
"""Writes tests/golden/jinja_snippets.json: what jinja2, in Hugging Face's environment, makes of small
templates that cover the language: the output, {"raised"} or {"error"}.

Usage: tools/golden/jinja_snippets.py   (made with jinja2 3.1.6, transformers 5.23.0)
"""
import json
import pathlib

from hugging_face_jinja import NOW, VERSIONS, render

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONTEXT = {
    "n": 7, "f": 2.5, "t": True, "none_value": None, "s": "Hello, World", "u": "Grüße 日本 😀 ß",
    "empty": "", "words": ["pear", "Apple", "fig", "apple", "Fig"], "nums": [3, 1, 2, 3],
    "d": {"a": 1, "B": [1, 2], "c": {"x": None}, "items": "own"},
    "rows": [{"name": "b", "age": 2, "tags": ["x"]}, {"name": "A", "age": 1},
             {"name": "c", "age": 2, "tags": []}],
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]},
             {"v": 5, "kids": []}],
    "lines": "one\n\n  two\r\nthree", "html": "<a href=\"x\">'&'</a>", "big": 12345678901234567890,
}

# Expressions, printed as {{ ... }}.
EXPRESSIONS = r"""
1 + 2 * 3
7 // 2, -7 // 2, 7 // -2, 7.5 // 2, -7.5 // 2
7 % 3, -7 % 3, 7 % -3, 7.5 % 2, -7.5 % 2
7 / 2, 6 / 3, 1 / 3
2 ** 10, 2 ** -1, 2 ** 3 ** 2, 2.0 ** 0.5, -2 ** 2
-n, +n, -f, - -n, -true
true + true, true * 3, false - 1
n ~ f ~ t ~ none_value ~ "x" ~ [1]
1_000, 0x1F, 0b101, 0o17, 00, 1e3, 1.5e-7, 1_0.5_0, 12e20
1e16, 1e15, 123456789012345680.0, 0.0001, 0.00001, 1e22, 1.0, 100.0, -0.0
0.1 + 0.2, 1e308 * 10, 5e-324
big, big + 1, big * 2, -big
"a" + "b", "a" "b" 'c', "ab" * 3, 3 * "ab", "ab" * -1, [1] * 2, (1,) + (2,)
[1] + [2, 3]
"a" + 1
[1] + (2,)
1 / 0
1 // 0
1 % 0
1.0 / 0
1 < 2 < 3, 1 < 3 < 2, 3 > 2 > 1 == 1
1 == 1.0, true == 1, "1" == 1, [1] == (1,), [1, [2]] == [1.0, [2]], {"a": 1} == {"a": 1.0}
"a" < "b", "a" < "B", [1, 2] < [1, 3], (1,) < (1, 2), "é" > "z"
1 < "a"
none < 1
none == none, none != false, none == 0
1 in [1, 2], "a" in "cat", "a" not in d, "a" in d, 3 in range(3), "x" in ()
1 in "a"
1 in 5
missing in [1], missing in [missing], 1 in missing
"x" in missing
missing in "abc"
not 1, not not 1, not none, 1 and 2, 0 and 2, 1 or 2, 0 or "x", none or 0
1 if true else 2, 1 if false else 2, 1 if false
"a" if false else "b" if false else "c"
(1 if false).x
[1, 2, 3][0], [1, 2, 3][-1], [1, 2, 3][5], "abc"[1], "abc"[-1], (1, 2)[1]
s[0:5], s[:-3], s[::2], s[::-1], s[7:], s[-5:-1], s[10:2], s[5:0:-2]
u[6], u[-1], u[2:5], u[::-1], u|length
[1, 2, 3, 4][1:3], [1, 2, 3, 4][::-1], (1, 2, 3)[1:], range(10)[2:8:3]
s[::0]
s["a":]
missing[1:]
d.a, d["a"], d.B[1], d.c.x, d.items, d["items"], d.nope, d.nope is defined
d.get("a"), d.get("z"), d.get("z", 5), d.keys()|list, d.values()|list
d.nope.deeper
d["nope"]["deeper"]
missing.x
missing["x"]
missing()
missing + 1
1 + missing
-missing
missing < 1
missing == missing, missing == none, missing != 1
missing ~ "x", missing|string, [missing], missing|length, missing|list
d.keys(), d.items, {"a": 1}.items(), {"a": 1}.values()
{"a": 1}.items() is mapping, {"a": 1}.keys() == {"a": 2}.keys()
words.index("fig"), words.count("fig"), (1, 2, 1).count(1), (1, 2).index(2)
words.index("nope")
words.append("x")
words.append is defined, words.pop is defined, d.update is defined, d.copy() == d
d.update({"x": 1})
d.pop("a")
s.__class__
s.__class__.__mro__
d.__class__ is defined
"".__len__
(1, 2, 3).0, [[1, 2], [3]].0.1
none.x
none["x"]
5.x
(5).real, (5).bit_length(), (2.0).is_integer(), (5).imag, true.numerator
{"a": 1, "b": {"c": [1, 2.0, none, true, "x'y", 'q"r', "both'\""]}}
{1: "int", 1.5: "f", none: 0, true: "t", (1, 2): 3}
{[1]: 2}
{"a": 1, "a": 2}
[1, "a", none, true, 1.5, (1,), (), [], {}]
"tab\t nl\n back\\ uni\u00e9 hex\x41 oct\101 nul\0 bell\a esc\q cont\
inued"
["\t", "\n", "\\", "\x00", "\x7f", "\u200b", "é", "\xa0", "😀", "\r"]
"\é"
"\u12"
'it''s', "a\"b", 'a\'b'
"%s and %d" % ("x", 5), "%5d|%-5d|%05d|%+d" % (1, 2, 3, 4), "%.2f %e %g" % (1.005, 12345.678, 0.0001)
"%x %X %o %#x %c %c %%" % (255, 255, 8, 255, "a", 98)
"%(a)s-%(b)r" % {"a": 1, "b": "x"}
"%s" % none, "%s" % [1], "%r" % "a", "%10s|%-10s|%.2s" % ("ab", "cd", "efg")
"%d" % 2.9, "%i" % true, "%5.1f|%-8.3e|" % (2.25, 1234.5)
"%d" % "x"
"%s %s" % "x"
"%s" % (1, 2)
"%y" % 1
"%*d" % (5, 1)
"{} {}".format(1, "a"), "{0}{1}{0}".format("x", "y"), "{a}-{b}".format(a=1, b=2)
"{:5}|{:<5}|{:>5}|{:^5}|{:*^7}".format("a", "b", "c", "d", "e")
"{:5d}|{:05d}|{:+d}|{:,}|{:_}|{:x}|{:#X}|{:b}|{:o}|{:c}".format(1, 2, 3, 1234567, 1234567, 255, 255, 5, 8, 65)
"{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.1%}|{:,.2f}".format(1.005, 3.14159, 12345.678, 0.00001, 0.5, 0.123, 12345.678)
"{:.3}|{:.3}|{}|{:10}|{:<10}|".format("abcdef", 3.14159, 2.0, 2.5, true)
"{0[a]}|{0.a}|{1[0]}|{0[c][x]}".format(d, nums)
"{!r}|{!s}|{{}}".format("a", "b")
"{:{}}|{:{w}}".format("a", 5, "b", w=3)
"{} {0}".format(1)
"{}".format()
"{x}".format()
"{".format()
"}".format()
"{:d}".format("a")
"{:s}".format(1)
"{a}".format_map({"a": 5})
"{:08,d}|{:010.2f}|{:=+6}".format(1234, -3.14159, 5)
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), u.upper(), u.lower(), u.casefold()
"ΑΣ ΑΣΑ".lower(), "ŉ ﬁ ǆ".upper(), "ǆx ß".title(), "İ".lower(), "ﬁx".capitalize()
s.split(), s.split(","), s.split(", ", 1), " a  b ".split(), " a  b ".split(" "), "".split(), "".split(",")
"a,b,c,d".split(",", 2), "a,b,c,d".rsplit(",", 2), " a b  c ".rsplit(none, 1), "a b c".split(none, 1), "a,b".split(sep=",")
"a".split("")
"  x ".strip() ~ "|", "xxaxx".strip("x"), "xyaxy".lstrip("yx"), "abcba".rstrip("ab"), "\u3000a\u00a0".strip()
s.startswith("Hell"), s.startswith(("x", "H")), s.endswith("d"), s.endswith(("d",)), s.startswith("W", 7), s.startswith("")
s.startswith(["H"])
s.startswith(1)
s.replace("l", "L"), s.replace("l", "", 1), "aaa".replace("a", "b", 2), "abc".replace("", "-"), "".replace("", "x")
s.find("o"), s.find("o", 5), s.find("z"), s.rfind("o"), s.index("W"), s.count("l"), s.count(""), u.find("日"), s.find("l", -3), s.find("", 50)
s.index("z")
"-".join(words), "".join([]), ",".join("abc"), ", ".join(d)
"-".join([1])
lines.splitlines(), lines.splitlines(true), "a\x0bb\x1cc\u2028d\n".splitlines()
"12".isdigit(), "1.2".isdigit(), "²".isdigit(), "²".isdecimal(), "½".isnumeric(), "ab".isalpha(), "a1".isalnum(), " \t".isspace(), "".isalpha()
"Ab".istitle(), "AB".isupper(), "ab1".islower(), "a b".isidentifier(), "_a1".isidentifier(), "é".isascii(), "a\n".isprintable()
"prefix-x".removeprefix("prefix-"), "x.py".removesuffix(".py"), "x".removeprefix("y")
"a=b=c".partition("="), "a=b=c".rpartition("="), "abc".partition("-"), "abc".rpartition("-")
"42".zfill(5), "-42".zfill(5), "abc".ljust(6, ".") ~ "|", "abc".rjust(6) ~ "|", "ab".center(5, "*"), "abc".center(6, "*"), "abc".center(2)
"a\tb".expandtabs(4), "a\tb".expandtabs()
s.nope
s.nope()
s.upper(1)
s.strip(1)
range(5)|list, range(2, 5)|list, range(5, 0, -2)|list, range(3), range(1, 9, 2), range(3)|length, range(3)[1], range(3) == range(0, 3)
range(100001)
range(1, 2, 0)
range("a")
range()
dict(a=1, b=2), dict({"x": 1}, y=2), dict([("a", 1)]), dict()
dict(1)
dict.fromkeys(["a", "b"]), dict.fromkeys("ab", 0)
namespace(a=1, b="x"), namespace({"q": 1}).q, namespace().x is defined
namespace(_a=1)
cycler("a", "b").next(), joiner("-")()
raise_exception("no " ~ n)
raise_exception(1)
raise_exception()
strftime_now("%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %y %-d %e %p %I %% %f|%z|%Z")
strftime_now("%d %b %Y"), strftime_now("")
nope()
n()
"x"()
words|join, words|join(", "), nums|join("-"), rows|join(",", attribute="name"), ""|join, d|join("/"), [none, 1]|join("|")
5|join
words|length, d|count, s|length
5|length
n|length
words|map("upper")|length
words|first, words|last, ""|first is defined, []|last is defined, s|first, s|last, d|first, d|last, range(4)|last
words|map("upper")|last
words|sort, words|sort(true), words|sort(case_sensitive=true), words|sort(reverse=true, case_sensitive=true), nums|sort
rows|sort(attribute="age")|map(attribute="name")|list, rows|sort(attribute="age,name")|map(attribute="name")|list, rows|sort(true, attribute="name")|map(attribute="name")|join
[1, "a"]|sort
[none, 1]|sort
words|unique|list, words|unique(true)|list, rows|unique(attribute="age")|map(attribute="name")|list, [1, 1.0, true]|unique|list
[[1]]|unique|list
nums|min, nums|max, words|min, words|max(case_sensitive=true), rows|min(attribute="age"), []|max is defined
[1, "a"]|max
nums|sum, rows|sum(attribute="age"), [1.5, 2]|sum(start=10), []|sum, [[1], [2]]|sum(start=[])
["a"]|sum
["a"]|sum(start="")
words|map("upper")|list, words|map("replace", "p", "P")|list, rows|map(attribute="age")|list, rows|map(attribute="tags", default=[])|list, rows|map(attribute="tags.0")|list, [[1, 2], [3, 4]]|map(attribute=1)|list
words|map("nope")|list
words|map
words|map(attribute="x", foo=1)|list
nums|select|list, nums|select("odd")|list, nums|reject("odd")|list, nums|select("gt", 2)|list, nums|select(">=", 2)|list, words|select("in", ["fig"])|list, [0, 1, "", "a", none]|select|list
rows|selectattr("tags")|list|length, rows|selectattr("age", "equalto", 2)|map(attribute="name")|list, rows|rejectattr("tags", "defined")|map(attribute="name")|list, rows|selectattr("age", "==", 1)|first
rows|selectattr|list
nums|select("nope")|list
rows|groupby("age"), rows|groupby("age")|map(attribute="grouper")|list, rows|groupby("tags", default="none")|length
rows|groupby("name")|map(attribute="list")|map("length")|list, rows|groupby("name", case_sensitive=true)|map("first")|list
nums|batch(3)|list, nums|batch(3, 0)|list, nums|slice(3)|list, nums|slice(3, "x")|list, []|batch(2)|list, [1]|slice(3)|list
nums|slice(0)|list
d|dictsort, {"b": 1, "a": 2, "C": 0}|dictsort, {"b": 1, "a": 2}|dictsort(by="value"), {"b": 1, "C": 2}|dictsort(true), {"b": 1, "a": 2}|dictsort(reverse=true)
{"b": 1}|dictsort(by="x")
[1]|dictsort
d|items|list, missing|items|list
[1]|items|list
words|reverse|list, s|reverse, range(3)|reverse|list, d|reverse|list, (words|map("upper"))|reverse
5|reverse
s|list, d|list, (1, 2)|list, "日本"|list
5|list
none|list
s|upper, s|lower, s|capitalize, s|title, "foo-bar (baz) [qux] <q> it's"|title, 5|upper, none|upper, u|title
s|replace("o", "0"), s|replace("o", "0", 1), 55|replace(5, 6), "aaa"|replace("a", "b", count=2)
s|replace("o")
"  x  "|trim ~ "|", "xxax"|trim("x"), 5|trim, "\n a"|trim
lines|indent, lines|indent(2), lines|indent(2, true), lines|indent("> ", true, true), ""|indent, "a\n"|indent, "a\n\nb"|indent(blank=true), "x"|indent(first=true)
5|indent
s|truncate(5), s|truncate(8, true), s|truncate(9, false, "…", 0), s|truncate, ("word " * 80)|truncate(20), "abcdef"|truncate(5, leeway=0, end="")
s|truncate(2)
s|wordcount, u|wordcount, "a-b c_d e1"|wordcount, ""|wordcount
s|center(20) ~ "|", 5|center(3)
"%s-%s"|format(1, 2), "%(x)d"|format(x=5), 5|format, "%5.2f"|format(3.14159)
"%s"|format(1, x=2)
html|e, html|escape, html|e|e, html|forceescape, (html|e)|forceescape, html|safe, (html|safe) is escaped, html is escaped
(html|e) + "<b>", "<b>" + (html|e), (html|e) ~ "<b>", (html|safe)|upper, "<%s>"|safe|format("<x>"), ("<a>"|safe).replace("a", "<"), "<"|safe|replace("<", ">"), ["<"|safe, "<"]|join("&"), ["<"|e], ("<"|e).join(["<", ">"|safe])
"a b/c?d=é&"|urlencode, {"a": "b c", "é": 1}|urlencode, [("x", "y/z")]|urlencode, 5|urlencode
"42"|int, "x"|int, "x"|int(7), "42.9"|int, 42.9|int, -42.9|int, "0x1f"|int(base=16), "1f"|int(0, 16), "0b11"|int(base=0), " 7 "|int, "1_000"|int, none|int, [1]|int, true|int, "٣"|int, "1e3"|int
missing|int
"1.5"|float, "x"|float, "x"|float(1.0), 3|float, none|float, "1e3"|float, "inf"|float, "nan"|float, "-1_0.5"|float, true|float
missing|float
3.7|round, 2.5|round, 3.5|round, -2.5|round, 42|round, 2.675|round(2), 1234.5678|round(2), 1234.5678|round(-2), 1250|round(-2), 1350|round(-2), 0.5|round, 1e20|round(2)
42.1|round(0, "ceil"), 42.9|round(0, "floor"), 42.123|round(2, "ceil"), 42|round(method="floor"), -1.5|round(0, "ceil"), 1234|round(-2, "ceil"), true|round
42|round(0, "x")
"x"|round
-5|abs, 2.5|abs, -2.5|abs, true|abs
"x"|abs
1|filesizeformat, 0|filesizeformat, 999|filesizeformat, 1000|filesizeformat, 123456789|filesizeformat, 123456789|filesizeformat(true), "2048"|filesizeformat(true), 1e30|filesizeformat
missing|default("x"), none|default("x"), none|default("x", true), ""|d("x", true), 0|default(5, boolean=true), 1|default(2), missing|default, d.nope|default(d.a)
missing.x|default("x")
d|attr("keys") is callable, d|attr("a") is defined, missing|attr("x") is defined
d|tojson, words|tojson, s|tojson, none|tojson, true|tojson, 1.5|tojson, 1e100|tojson, u|tojson, html|tojson, (1, 2)|tojson, {}|tojson, []|tojson, "\x00\x1f\x7f\b\f\n\r\t\"\\/\u2028"|tojson
d|tojson(indent=2), [[], {}, [1]]|tojson(indent=1), d|tojson(indent="--"), d|tojson(indent=0)
u|tojson(ensure_ascii=true), u|tojson(true), d|tojson(separators=(",", ":")), {"b": 1, "a": {"d": 1, "c": 2}}|tojson(sort_keys=true), d|tojson(indent=4, separators=(", ", " : "))
{1: 2, none: 3, true: 4, 1.5: 5}|tojson, "nan"|float|tojson, "-inf"|float|tojson
{(1, 2): 3}|tojson
missing|tojson
range(3)|tojson
d.keys()|tojson
namespace()|tojson
words|map("upper")|tojson
s|tojson(foo=1)
{"b": 1, 2: 3}|tojson(sort_keys=true)
n is odd, n is even, n is divisibleby 7, n is divisibleby(3), 4.0 is even, 3.0 is odd
"x" is odd
n is defined, missing is defined, missing is undefined, n is not defined, missing is not defined
none is none, 0 is none, none_value is none, missing is none
t is boolean, 1 is boolean, t is true, 1 is true, false is false, none is false
1 is integer, true is integer, 1.0 is integer, 1.0 is float, 1 is number, true is number, "1" is number, none is number
"a" is string, ("a"|e) is string, 1 is string, missing is string
d is mapping, [] is mapping, d.keys() is mapping
[] is sequence, () is sequence, "a" is sequence, d is sequence, 5 is sequence, range(3) is sequence, missing is sequence, d.keys() is sequence, (words|map("upper")) is sequence
[] is iterable, "a" is iterable, d is iterable, 5 is iterable, missing is iterable, (words|map("upper")) is iterable, none is iterable
s.upper is callable, s is callable, range is callable, missing is callable, d.get is callable
"ab" is lower, "AB" is upper, "aB" is lower, "1" is upper, 5 is lower
1 is sameas 1, none is sameas none, true is sameas 1, d is sameas d, [] is sameas []
1 is in [1, 2], "a" is in "abc", 3 is not in [1], "a" is in d
1 is eq 1, 1 is ne 2, 1 is lt 2, 2 is gt 1, 1 is le 1, 1 is ge 2, 1 is equalto 1, 1 is lessthan 2, 2 is greaterthan 1, 1 is "==" 1
1 is == 1
"upper" is filter, "nope" is filter, "odd" is test, "nope" is test, "==" is test
1 is nope
1|nope
1 is defined is defined
not missing is defined, not 1 == 2, -1|abs, -(1)|abs, (-1)|abs, 2 ** 2|abs
n is divisibleby 7 and t, n is odd or missing.x, n is odd if t else 1
(words|map("upper")) is defined, (words|select)|first, nums|map("string")|join("+")
[1, 2][0:1][0], "a,b".split(",")[1].upper()[0], d.B|first + 1, {"k": [1, 2]}["k"][-1]
((1)), (1,), (), (1, 2,), [1, 2,], {"a": 1,}
1,
1, 2
[(1, 2), (3,)]|map("first")|list, [[3, 1], [2]]|map("sort")|list, ["a", "b"]|map("format", 1)|list
[1, 2, 3]|map("string")|map("int")|sum, words|map("length")|list, words|map("first")|map("upper")|join
max(1, 2)
len(s)
loop
loop.index
caller()
true and false or not none
"a" in "abc" and "d" not in "abc", not "a" in "abc", ("a" in "abc") in [true]
1 if n > 5 and f < 3 or false else 0
[x, y]
n.0
d.0
s.0
lines|length, "\r\n"|length
"a" ~ 1 + 2 ~ "b"
1 + 2 ~ 3 * 2
"x" if missing else "y", "x" if missing is defined and missing.a else "y"
{"a": {"b": 1}}.a.b, {"get": 1}.get, {"get": 1}["get"], {"x": 1}["get"]("x")
words[n], words["0"], words[true], words[1.0], d[none], d[[1]], s["x"]
words[missing], d[missing]
(1, [2, {"a": (3,)}])|string, [1]|string|length, 1.0|string, true|string, none|string
"\u00e9\u0301" == "é́"
"abc" "def"[1]
1.5.is_integer(), 1 .real
1.
.5
1..real
a b
1 +
(1
[1, 2
{"a" 1}
{"a": }
1 not 2
f(x=1, 2)
f(**d, x=1)
dict(**{"a": 1}), dict(*[[("a", 1)]]), dict(*[[("a", 1)]], **{"b": 2})
dict(**5)
dict(*5)
dict(a=1, a=2)
dict(a=1, **{"a": 2})
"{}{}".format(*[1, 2]), "%s %s"|format(*("a", "b"))
$x
a ? b
a := 1
lambda x: x
x for x in y
"unterminated
{{ 1 }}
""".strip("\n").split("\n")
EXPRESSIONS = "\n".join(EXPRESSIONS).replace("cont\\\ninued", "cont\\\0inued").split("\n")

TEMPLATES = [
    "a\n", "a\n\n", "a", "", "\n", "\r\na\rb\r\n", "{{ 1 }}\n", "{{ 1 }}\n\nx", "  {{ 1 }}  \n",
    "{# c #}\nx", "a {# c #} b", "  {# c #}\nx", "a\n  {#- c -#}\n b", "{# {{ x }} {% if %} #}", "{# open", "{#+ c +#}\nx", "{##}x", "{#-#}x",
    "{% if true %}\nx\n{% endif %}\ny", "  {% if true %}  \n  x\n  {% endif %}\ny", "a {% if true %} b {% endif %} c",
    "a\n  {%- if true %}\n  b\n  {%- endif %}\nc", "a\n  {% if true -%}\n  b\n  {% endif -%}\nc", "a  {{- 1 -}}  b", "a \n {{- 1 }} \n b",
    "  {%+ if true %}x{%+ endif %}", "{% if true +%}\nx{% endif +%}\ny", "x\n\t {% set a = 1 %}\ny", "x {% set a = 1 %}\ny", "\t{%- set a = 1 -%}\ny",
    "{% raw %}{{ x }} {% if %}{% endraw %}", "  {% raw %}\n  a\n  {% endraw %}\nb", "a {%- raw -%} b {%- endraw -%} c", "{% raw %}", "{% raw %}{% raw %}{% endraw %}", "{%raw%}x{%endraw%}", "{% raw +%}x{% endraw %}",
    "{", "{ {", "a { b } c %} }}", "}}", "{ % x %}", "{{}}", "{{ }}", "{%%}", "{% %}", "{{ '}}' }}", "{{ '%}' }}", "{{ {'a': 1}}}", "{{ {'a': {}} }}", "{{ 1 }", "{% if true }", "{{ 1 %}", "{{ [1}} ]",
    "{% if n %}a{% elif t %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif t %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "{% if 0 %}a{% endif %}", "{% if missing %}a{% else %}b{% endif %}",
    "{% if 1, 2 %}a{% endif %}", "{% if %}a{% endif %}", "{% if 1 %}a", "{% endif %}", "{% if 1 %}a{% endfor %}", "{% else %}", "{% if 1 %}{% else %}{% elif 2 %}{% endif %}", "{% if 1 if 2 else 3 %}x{% endif %}",
    "{% for x in nums %}{{ x }},{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}", "{% for x in nums if x > 1 %}{{ x }}{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% for x in nums if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in missing %}a{% else %}b{% endfor %}", "{% for x in 5 %}a{% endfor %}", "{% for x in none %}a{% endfor %}",
    "{% for k, v in d.c.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }} {% endfor %}", "{% for k, v in d|items %}{{ k }} {% endfor %}", "{% for c in u %}[{{ c }}]{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }} {% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [(1,)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}",
    "{% for x in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in nums %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }};{% endfor %}", "{% for x in nums %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in nums %}{{ loop.cycle() }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in nums %}{{ loop }}{% endfor %}", "{% for x in nums|map('string') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for x in nums %}{% for y in 'ab' %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}", "{% for x in nums %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for n in tree recursive %}{{ n.v }}@{{ loop.depth }}{% if n.kids %}({{ loop(n.kids) }}){% endif %}{% if not loop.last %},{% endif %}{% endfor %}", "{% for x in nums %}{{ loop(x) }}{% endfor %}", "{% for x in nums recursive %}{{ loop(5) }}{% endfor %}",
    "{% for x in nums %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in nums %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% break %}", "{% continue %}", "{% for x in nums %}{% break %}{% else %}e{% endfor %}", "{% for x in nums %}{% continue %}{% else %}e{% endfor %}", "{% for x in nums %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% for x in nums %}{% with %}{% break %}{% endwith %}{% endfor %}done", "{% for x in nums %}{{ x }}{% set y %}a{% break %}{% endset %}{% endfor %}z",
    "{% for x in nums %}{% set y = x %}{% endfor %}{{ y }}", "{% set y = 0 %}{% for x in nums %}{% set y = y + x %}{{ y }} {% endfor %}{{ y }}", "{% for x in nums %}{% endfor %}{{ x }}", "{% set x = 9 %}{% for x in nums %}{{ x }}{% endfor %}{{ x }}", "{% for x in nums %}{{ loop.nope }}{% endfor %}|{{ loop }}", "{% for loop in nums %}{% endfor %}", "{% for x in nums %}{% set loop = 1 %}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in nums|reverse %}{{ x }}{% endfor %}", "{% for g in rows|groupby('age') %}{{ g.grouper }}:{{ g.list|length }} {% endfor %}", "{% for age, people in rows|groupby('age') %}{{ age }}{{ people|map(attribute='name')|join }} {% endfor %}", "{% for x in nums[1:] + [9] %}{{ x }}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}", "{% for x in nums if loop.index > 1 %}{{ x }}{% endfor %}",
    "{% set g = nums|select('odd') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}", "{% set ns = namespace(seen=false) %}{% for x in nums if not ns.seen %}{{ x }}{% if x == 1 %}{% set ns.seen = true %}{% endif %}{% endfor %}",
    "{% set a = 1 %}{{ a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b) = [1, 2] %}{{ a }}{{ b }}", "{% set a, b = 1 %}", "{% set a = 1, 2 %}{{ a }}", "{% set a %}x{{ n }}y{% endset %}{{ a }}", "{% set a | upper %}x{{ n }}y{% endset %}{{ a }}", "{% set a | replace('x', 'z') | upper %}x{% endset %}{{ a }}", "{% set a %}<{% endset %}{{ a is escaped }}", "{% set a = %}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{% set a.b = 1 %}", "{% set d.a = 1 %}", "{% set none = 1 %}", "{% set a[0] = 1 %}",
    "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns.y }}", "{% set ns = namespace(n=0) %}{% for x in nums %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns }}", "{% set ns = namespace(l=[]) %}{% for x in nums %}{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.l }}", "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns.b is defined }}{{ ns|string }}", "{% set ns = namespace(x=1) %}{% set ns.x %}block{% endset %}{{ ns.x }}", "{% set ns = namespace() %}{{ ns == ns }}{{ ns is mapping }}{{ ns is iterable }}",
    "{% if true %}{% set z = 5 %}{% endif %}{{ z }}", "{{ z }}{% set z = 5 %}{{ z }}", "{% set n = n + 1 %}{{ n }}", "{% with %}{% set n = 1 %}{{ n }}{% endwith %}{{ n }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% with n = 1, m = n %}{{ m }}{% endwith %}", "{% with a, b = (1, 2) %}{{ a }}{{ b }}{% endwith %}", "{% with a, b = 1, 2 %}{% endwith %}", "{% with a %}{% endwith %}",
    "{% macro m() %}x{% endmacro %}{{ m() }}{{ m }}", "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 5) }} {{ m(1, c=9) }} {{ m(b=1, a=2) }} {{ m() }}", "{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}in{{ n }}{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b=3, c=4) m() %}{{ a }}{{ b }}{{ c }}{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}", "{% call n %}{% endcall %}", "{% call n() %}{% endcall %}", "{% macro m(caller) %}{{ caller }}{% endmacro %}", "{% macro m(a, a) %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ m('x') }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 1 %}{{ m() }}{% set later = 2 %}{{ m() }}", "{% for x in nums %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% for x in nums %}{{ m(x) }}{% endfor %}{% macro m(x) %}[{{ x }}]{% endmacro %}", "{% macro m(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ m(1) }}{{ y }}", "{% macro m(n) %}{{ n }}{% endmacro %}{{ m() }}{{ m(none) }}", "{% macro m(a=[], b={}) %}{{ a }}{{ b }}{% endmacro %}{{ m() }}", "{{ m.name }}{% macro m(a, b) %}{{ kwargs }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}", "{% macro outer() %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}", "{% macro m() %}{{ loop }}{% endmacro %}{% for x in nums %}{{ m() }}{% endfor %}", "{% macro m() %}a{{ caller() }}b{% endmacro %}{% call m() %}{% call m() %}x{% endcall %}{% endcall %}", "{% macro m() -%}\n  x\n{%- endmacro %}[{{ m() }}]", "{% macro m(x) %}{{ x }}{% endmacro %}{{ [1, 2]|map('string')|map('upper')|list }}{{ m|string }}", "{% macro m %}{% endmacro %}", "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(*nums) }}{{ m(**{}) }}", "{% macro m(a, b) %}{{ a }}-{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(5, **{'b': 6}) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(x=n) %}{{ x }}{% endmacro %}{% set n = 99 %}{{ m() }}", "{% macro m(n=n) %}{{ n }}{% endmacro %}{{ m() }}",
    "{% filter upper %}a{{ n }}b{% endfilter %}", "{% filter replace('a', 'b')|upper %}aa{% endfilter %}", "{% filter nope %}a{% endfilter %}", "{% filter trim %}  a  {% endfilter %}|", "{% generation %}a{{ n }}{% endgeneration %}b", "{%- generation -%} a {%- endgeneration -%} b", "{% generation %}{% set n = 1 %}{{ n }}{% endgeneration %}{{ n }}", "{% for x in nums %}{% generation %}{{ x }}{{ loop.last }}{% endgeneration %}{% endfor %}", "{% for x in nums %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% generation %}", "{% print 1 %}", "{% print 1, 'a' %}", "{% print %}", "{% block a %}x{{ n }}{% endblock %}", "{% block a %}{% endblock %}{% block a %}{% endblock %}", "{% block a %}x{% endblock a %}y", "{% set n = 1 %}{% block a %}{{ n }}{% endblock %}", "{% autoescape false %}{{ html }}{% endautoescape %}", "{% include 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% nope %}", "{% if true %}{{ 1|nope }}{% endif %}", "{% if false %}{{ 1|nope }}{% endif %}ok", "{% if false %}{{ 1 is nope }}{% endif %}ok", "{% for x in [] %}{{ 1|nope }}{% endfor %}ok", "{{ 1|nope if false else 2 }}", "{{ 1 if true else 2|nope }}", "{% macro m() %}{{ 1|nope }}{% endmacro %}ok", "{% if false %}{% for x in [] %}{{ 1|nope }}{% endfor %}{% endif %}ok", "{% trans %}x{% endtrans %}", "{% 1 %}", "{% if true %}\n\n  {{ n }}\n\n{% endif %}\n", "{% for x in nums %}\n  - {{ x }}\n{% endfor %}\nend", "{%- for x in nums -%}\n  - {{ x }}\n{%- endfor -%}\nend", "{% for x in nums %}\n{{ x }}\n{% if not loop.last %}\n--\n{% endif %}\n{% endfor %}", "{%- if true -%}  a  {%- endif -%}  b  ", "x{%- set a = 1 %}  y", "{{ '  a  ' -}}   b", "\n\n{{- 1 }}\n\n", "{% if true%}a{%endif%}", "{%if(true)%}a{%endif%}", "{%\n if\n true\n%}\na{% endif\n%}", "{{\n1\n}}\n", "{{ 1 -}}\n\n\n2", "a{{ '\n' }}b", "é{{ n }}ü\n  {% set x = 1 %}日", "\u00a0{% set x = 1 %}\nb", "\u2003{{- n -}}\u2003", "{% set x = 'a' -%} \u3000 b", "{{ joiner }}"[:0] + "{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}", "{% set j = joiner('|') %}{% for x in nums %}{{ j() }}{{ x }}{% endfor %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}", "{% set c = cycler() %}", "{{ raise_exception('stop: ' ~ s) }}", "{% if n > 5 %}{{- raise_exception('too large') }}{% endif %}", "{% set x = [1,\n 2] %}{{ x }}", "{{ 'a\nb' }}", "{{ 'a\r\nb'|length }}", "{# a #}{# b #}", "{{ 1 }}{# x\n#}\n{{ 2 }}", "a\n{# c #}\n\nb", "{%- set content = s ~ '\n' -%}{{ content }}|", "{% set x = d.items() %}{% for a, b in x %}{{ a }}{% endfor %}",
    "{% for x in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{{ n }}", "{{ n }}{% for x in [1] %}{{ n }}{% endfor %}{% set n = 1 %}", "{% for x in [1] %}{{ n }}{% endfor %}{% if t %}{% set n = 1 %}{% endif %}", "{% for x in [1] %}{{ n }}{% endfor %}{% if t %}{% set n = 1 %}{% else %}{% set n = 2 %}{% endif %}", "{% for x in [1] %}{{ n }}{% endfor %}{% if t %}{% set n = 1 %}{% elif f %}{% set n = 3 %}{% else %}{% set n = 2 %}{% endif %}", "{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% set n = 1 %}{{ m() }}", "{% for x in nums %}{% for y in [1] %}{{ n }}{% endfor %}{% set n = x %}{% endfor %}", "{% for x in [1] %}{% for y in [1] %}{{ n }}{% endfor %}{% set n = x %}{% endfor %}{{ n }}", "{% filter upper %}{{ s }}{% endfilter %}{% set s = 1 %}", "{% for x in range(2) %}{{ x }}{% endfor %}{% set range = 1 %}", "{% with n = 1, m = n %}{{ m }}{% endwith %}{% set n = 2 %}", "{% generation %}{{ n }}{% endgeneration %}{% set n = 1 %}", "{% set y %}{{ n }}{% endset %}{% set n = 1 %}{{ y }}", "{% for x in [1] %}{{ n }}{% endfor %}{% for n in [2] %}{{ n }}{% endfor %}", "{% filter length %}abc{% endfilter %}", "{% set y | length %}abc{% endset %}{{ y + 1 }}", "{% call range(3) %}{% endcall %}", "{{ range(4).count(1), range(4).index(2) }}", "{{ \"a\" % missing, \"a\" % [1], \"a\" % {} }}", "{{ \"a\" % 1 }}", "{{ {}|truncate, missing|truncate }}",
]


def main():
    golden = {"versions": VERSIONS, "now": NOW, "context": CONTEXT, "snippets": []}
    for source in ["{{ " + e.replace("\0", "\n") + " }}" for e in EXPRESSIONS] + TEMPLATES:
        snippet = {"template": source, **render(source, CONTEXT)}
        if " at 0x" not in snippet.get("output", ""):  # an address
            golden["snippets"].append(snippet)
    for snippet in golden["snippets"]:
        if "error" in snippet:
            snippet["error"] = snippet["error"].split(":")[0]
    text = ",\n".join(json.dumps(s, ensure_ascii=False) for s in golden.pop("snippets"))
    head = json.dumps(golden, ensure_ascii=False)[:-1]
    path = ROOT / "tests/golden/jinja_snippets.json"
    path.write_text(f'{head}, "snippets": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
