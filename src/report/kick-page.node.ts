import { disagreementLines, isUnstructured, type KickReport, type KickRow, rowName } from "../evaluate/index.ts";
import { chartPage, escapeHtml } from "../train/node.ts";

/** An audit with what it was made of. */
export interface KickDocument {
  readonly model: string;
  readonly machine: string;
  /** The text of perplexity, and how many tokens of it. */
  readonly text: { readonly name: string; readonly tokens: number };
  /** Name of each score's task with how many items it has. */
  readonly items: Readonly<Record<string, number>>;
  /** Calls of the judge; null where no task is judged. */
  readonly judgeCalls: number | null;
  readonly report: KickReport;
}

const style = `
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
td small { opacity: 0.7; }
td.lost { color: light-dark(#b3261e, #ff9a8f); }
.note { opacity: 0.75; font-size: 0.9rem; margin: 0.25rem 0 0.5rem; }
.swatch { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; margin-right: 0.4em; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 1.5rem; }
.panels > * { min-width: 0; }
li { margin: 0.25rem 0; }
`;

/** A self-contained page of an audit: charts of what is left, all numbers, and where perplexity misleads. */
export function kickPage(document: KickDocument): string {
  const { model, machine, text, report, items, judgeCalls } = document;
  const { eps, rows, warnings } = report;
  const title = `What compression took from ${model}`;
  const counts = Object.entries(items).map(([task, count]) => `${task} (${count})`);
  const judged = judgeCalls === null ? "" : ` The judge was called ${judgeCalls} times.`;
  const body = `<h1>${escapeHtml(title)}</h1>
<p class="note">Tasks with their items: ${escapeHtml(counts.join(", "))}. Perplexity on ${text.tokens.toLocaleString("en")} tokens of ${escapeHtml(text.name)}. A score matches when it loses at most ${percent(eps)} of the dense model's; what lost more is red.${judged} Measured on ${escapeHtml(machine)}.</p>
<p>${methodsOf(rows).map(swatch).join(" &nbsp; ")}</p>
<div id="panels" class="panels"></div>
<h2>Where perplexity and tasks disagree</h2>
${disagreements(report)}
<h2>Sparsity up to which a score matches</h2>
<div class="wide">${matchingTable(report)}</div>
<h2>All models</h2>
<div class="wide">${rowTable(report)}</div>
${warnings.length > 0 ? `<h2>Warnings</h2><ul>${warnings.map((line) => `<li>${escapeHtml(line)}</li>`).join("")}</ul>` : ""}`;
  return chartPage({ title, style, body, data: panelsOf(report), script });
}

const methodsOf = (rows: readonly KickRow[]): string[] => [...new Set(rows.map(({ method }) => method))];
const percent = (share: number): string => `${+(100 * share).toFixed(1)}%`;
const number = (value: number): string => String(+value.toPrecision(3));

function swatch(method: string, index: number): string {
  return `<span><span class="swatch" data-colour="${index}"></span>${escapeHtml(method)}</span>`;
}

function disagreements(report: KickReport): string {
  const lines = disagreementLines(report);
  if (lines.length === 0)
    return `<p class="note">Nowhere beyond doubt: wherever scores of two methods differ by more than their intervals, perplexity ranks them alike.</p>`;
  return `<ul>${lines.map((line) => `<li>${escapeHtml(line)}.</li>`).join("")}</ul>`;
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[]): string =>
    row.map((cell) => (cell.startsWith("<td") ? cell : `<td>${cell}</td>`)).join("");
  const head = heads.map((name) => `<th>${escapeHtml(name)}</th>`).join("");
  return `<table><thead><tr>${head}</tr></thead><tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</tbody></table>`;
}

function matchingTable({ maxMatching, dense }: KickReport): string {
  const keys = Object.keys(dense.scores);
  const rows = Object.entries(maxMatching).map(([method, of]) => [
    escapeHtml(method),
    ...keys.map((key) => {
      const most = of[key] ?? null;
      return most === null ? "none" : percent(most);
    }),
  ]);
  return rows.length === 0
    ? `<p class="note">No method was tried at a share of the weights.</p>`
    : table(["method", ...keys], rows);
}

function rowTable({ dense, rows }: KickReport): string {
  const keys = Object.keys(dense.scores);
  const first = [
    "dense",
    "0%",
    "",
    number(dense.perplexity),
    ...keys.map((key) => {
      const { value, low, high } = dense.scores[key]!;
      return value === null ? "–" : `${number(value)} <small>${number(low!)}–${number(high!)}</small>`;
    }),
  ];
  const others = rows.map((row) => [
    escapeHtml(rowName(row)),
    percent(row.achievedSparsity),
    row.bitsPerWeight.toFixed(2),
    `${number(row.perplexity)} <small>${row.perplexityRise >= 0 ? "+" : ""}${percent(row.perplexityRise)}</small>`,
    ...keys.map((key) => {
      const { mean, ci95, matching } = row.scores[key]!;
      if (mean === null) return "–";
      const interval = ci95 ? ` <small>${number(ci95[0])}–${number(ci95[1])}</small>` : "";
      return `<td${matching ? "" : ' class="lost"'}>${number(mean)}${interval}</td>`;
    }),
  ]);
  return table(["model", "sparsity", "bits/weight", "perplexity", ...keys], [first, ...others]);
}

/** One chart: what is left of a score, by method. */
interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly xs: readonly number[];
  readonly series: readonly {
    readonly label: string;
    readonly method: number;
    readonly values: readonly (number | null)[];
  }[];
  /** A line across: what still matches. */
  readonly line: number | null;
}

function panelsOf(report: KickReport): Panel[] {
  const { rows, dense, eps } = report;
  const methods = methodsOf(rows);
  const kinds = [
    {
      unit: "% dropped",
      own: rows.filter(({ setting }) => isUnstructured(setting)),
      x: (row: KickRow) => 100 * row.setting.sparsity!,
    },
    {
      unit: "bits",
      own: rows.filter(({ setting }) => setting.bits !== undefined),
      x: (row: KickRow) => row.setting.bits!,
    },
  ];
  const scores: readonly { title: string; line: number | null; y(row: KickRow): number | null }[] = [
    { title: "perplexity, of the dense model's", line: null, y: (row) => 1 + row.perplexityRise },
    ...Object.entries(dense.scores)
      .filter(([, { value }]) => value !== null && value !== 0)
      .map(([key, { value }]) => ({
        title: `${key}, of the dense model's`,
        line: 1 - eps,
        y: (row: KickRow) => {
          const { mean } = row.scores[key]!;
          return mean === null ? null : mean / value!;
        },
      })),
  ];
  return kinds.flatMap(({ unit, own, x }) => {
    const xs = [...new Set(own.map(x))].sort((a, b) => a - b);
    if (xs.length < 2) return [];
    return scores.map(({ title, line, y }) => ({
      title,
      unit,
      xs,
      line,
      series: methods.flatMap((label, method) => {
        const mine = own.filter((row) => row.method === label);
        if (mine.length === 0) return [];
        const values = xs.map((at) => {
          const row = mine.find((one) => x(one) === at);
          return row ? y(row) : null;
        });
        return [{ label, method, values }];
      }),
    }));
  });
}

const script = `
const colour = (i) => look.colours[i % look.colours.length];
for (const s of document.querySelectorAll("[data-colour]")) s.style.background = colour(+s.dataset.colour);
const charts = [];
addEventListener("resize", () => { for (const [chart, host] of charts) chart.setSize({ width: host.clientWidth, height: 220 }); });
const significant = (v) => (v === null || v === undefined ? "" : String(+(+v).toPrecision(3)));
for (const { title, unit, xs, series, line } of data) {
  const section = document.createElement("section");
  section.innerHTML = "<h2></h2><div></div>";
  section.firstChild.textContent = title;
  document.getElementById("panels").append(section);
  const host = section.lastChild;
  const across = line === null ? [] : [{ label: "matching", stroke: look.ink, width: 1, dash: [4, 4], points: { show: false } }];
  const chart = new uPlot({
    width: host.clientWidth, height: 220, legend: { show: false }, cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false, range: (u, low, high) => [low - (high - low) * 0.04, high + (high - low) * 0.04] } },
    axes: [
      { ...look.axis, label: unit, values: (u, ticks) => ticks.map(significant) },
      { ...look.axis, size: 56, values: (u, ticks) => ticks.map(significant) },
    ],
    series: [
      {},
      ...across,
      ...series.map((s) => ({ label: s.label, stroke: colour(s.method), width: 1.5, spanGaps: true, points: { show: true, size: 6, fill: colour(s.method) } })),
    ],
  }, [xs, ...(line === null ? [] : [xs.map(() => line)]), ...series.map((s) => s.values)], host);
  charts.push([chart, host]);
}
`;
