// Style and script of a comparison's HTML page.
#pragma once

namespace lowbit {

// Light and dark by the reader's system, one column on a phone, landscape paper with ink on white.
inline constexpr const char* kComparisonStyle = R"css(
:root {
  --paper: #ffffff; --ink: #1c1e21; --soft: #5f6670; --rule: #d9dce1; --grid: #e8eaee;
  --band: #f5f6f8; --best: #0b6b3a; --bad: #a32020; --c6: #555555; --c7: #8c564b; --c8: #7b3294;
  --c0: #0072b2;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e6e8eb; --soft: #9aa2ad; --rule: #3a3f46; --grid: #2a2e34;
    --band: #1d2024; --best: #5fd394; --bad: #ff8a80; --c6: #b4b9c0; --c7: #c58b7f; --c8: #b57edc;
    --c0: #4aa3df;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 2rem 1.5rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
header p { margin: 0; max-width: 70ch; color: var(--soft); }
.scroll { overflow-x: auto; margin-top: 1.4rem; border-top: 1px solid var(--rule);
  border-bottom: 1px solid var(--rule); }
table { border-collapse: collapse; width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .5rem; text-align: left; vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--rule); vertical-align: bottom; padding: 0; }
thead button { font: inherit; font-size: .82rem; font-weight: 600; color: var(--soft); background: none;
  border: 0; padding: .5rem; width: 100%; text-align: inherit; cursor: pointer; line-height: 1.25;
  white-space: normal; }
thead button:hover { color: var(--ink); }
thead button::after { content: "\2195"; opacity: .35; margin-left: .25em; font-size: .85em; }
th[aria-sort=ascending] button::after { content: "\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\2193"; opacity: 1; }
th.number, td.number { text-align: right; }
tbody tr + tr > * { border-top: 1px solid var(--grid); }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); max-width: 17rem;
  min-width: 12.5rem; white-space: normal; overflow-wrap: anywhere; padding-left: 1.65rem;
  text-indent: -1.15rem; }
tbody th small { display: block; font-weight: 400; color: var(--soft); text-indent: 0; }
td.words { color: var(--soft); font-size: .82rem; line-height: 1.35; padding-top: .55rem; }
td.words:last-child { white-space: normal; min-width: 10rem; }
td.best { color: var(--best); font-weight: 700; }
tr.source > * { background: var(--band); }
tr.failed > th { color: var(--bad); }
.dot { display: inline-block; width: .65rem; height: .65rem; border-radius: 50%; margin-right: .5rem; }
.dot.dashed { border-radius: 0; height: .2rem; vertical-align: middle; }
.dot.b0 { background: var(--c0); } .dot.b6 { background: var(--c6); }
.dot.b7 { background: var(--c7); } .dot.b8 { background: var(--c8); }
.notes { color: var(--soft); font-size: .9rem; padding-left: 1.2rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 2rem 2.5rem; margin-top: 2.4rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure p { margin: .3rem 0 0; color: var(--soft); font-size: .87rem; }
svg { display: block; width: 100%; height: auto; fill: var(--ink); }
.paper { fill: none; } .grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
circle.c0 { fill: var(--c0); } line.c0, polyline.c0 { stroke: var(--c0); }
circle.c6 { fill: var(--c6); } line.c6, polyline.c6 { stroke: var(--c6); }
circle.c7 { fill: var(--c7); } line.c7, polyline.c7 { stroke: var(--c7); }
circle.c8 { fill: var(--c8); } line.c8, polyline.c8 { stroke: var(--c8); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .3rem 0 0;
  padding: 0; font-size: .87rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: .7rem 2rem; margin: 0; }
dt { font-size: .8rem; font-weight: 600; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--rule); margin-top: 2.6rem; }
footer h2 { margin-top: 1.2rem; }
@media (max-width: 640px) {
  main { padding: 1.2rem .9rem 2rem; }
  h1 { font-size: 1.35rem; }
  .scroll { margin-left: -.9rem; margin-right: -.9rem; }
  tbody th { min-width: 8rem; max-width: 9.5rem; font-size: .9rem; line-height: 1.3; }
  tbody th small { line-height: 1.25; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  th, td { padding: .22rem .35rem; }
  thead button { padding: .22rem .35rem; font-size: 8pt; }
  thead button::after { content: ""; margin: 0; }
  tbody th small, td.words { font-size: 7.5pt; }
  td.words, td.words:last-child { min-width: 0; padding-top: .3rem; }
  tbody th { position: static; min-width: 0; }
  tr, figure, dl > div { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; gap: 5mm 10mm; margin-top: 6mm; }
  .figures svg { max-height: 62mm; }
  .dot, svg, tr.source > * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
)css";

// Sorts the table by the column whose head is pressed, the other way at the second press; what has
// no value stays at the end.
inline constexpr const char* kComparisonScript = R"js(
"use strict";
(() => {
  const table = document.getElementById("results");
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent : cell.dataset.sort;
  };
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const numeric = head.classList.contains("number");
    const rows = [...table.tBodies[0].rows];
    rows.sort((first, second) => {
      const a = key(first, column), b = key(second, column);
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = numeric ? a - b : a.localeCompare(b, undefined, {numeric: true});
      return down ? -order : order;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  }));
})();
)js";

}  // namespace lowbit
