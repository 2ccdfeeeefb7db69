import {
  type MatrixUpdate,
  median,
  type Region,
  summaries,
  summaryOf,
  type UpdateReport,
  type UpdateSummary,
} from "../methods/index.ts";
import { chartPage, escapeHtml } from "../train/node.ts";
import { chartScript, tableStyle } from "./pieces.node.ts";

export interface UpdatePage {
  readonly before: string;
  readonly after: string;
  readonly report: UpdateReport;
}

const style = `${tableStyle}
.stripes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: 0.5rem 1.5rem; }
.stripes > div { min-width: 0; }
.stripes canvas { width: 100%; display: block; image-rendering: pixelated; border: 1px solid var(--line); box-sizing: border-box; margin-bottom: 0.3rem; }
.stripes b { font-weight: 600; font-size: 0.9rem; }
.stripes small { opacity: 0.75; }
`;

/** A self-contained page of what training changed between two checkpoints: table, curves by layer, stripes. */
export function updatePage({ before, after, report }: UpdatePage): string {
  const { alpha, matrices } = report;
  const overall = summaryOf("all", matrices);
  const body = `<h1>What training changed</h1>
<p class="note">From ${escapeHtml(before)} to ${escapeHtml(after)}. ${sentence(overall)}</p>
<div class="wide">${table([...summaries(matrices), overall])}</div>
<p class="note">Drift, angles and size are medians over matrices. <i>Principal</i> entries are the ${percent(alpha)} that are largest in the low-rank part of a matrix that holds half of its energy, <i>small</i> ones the ${percent(alpha)} of least magnitude; beside each share of changed entries stands what chance gives.</p>
<div class="pair">
<section><h2>Unchanged entries by layer</h2><p class="note">Share of entries that are the same as bfloat16.</p><div id="sparsity"></div></section>
<section><h2>Drift of the spectrum by layer</h2><p class="note">Distance of the singular values, relative to them.</p><div id="nss"></div></section>
<section><h2>Rotation of principal subspaces by layer</h2><p class="note">Mean principal angle, in degrees.</p><div id="angle"></div></section>
<section><h2>Rotation by direction</h2><p class="note">Principal angles in ascending order, in degrees, median over layers.</p><div id="curve"></div></section>
<section><h2>Changed entries that are principal</h2><p class="note">Dashed: what chance gives. Below it, training moves off the principal directions.</p><div id="principal"></div></section>
<section><h2>Changed entries that are small</h2><p class="note">Dashed: what chance gives.</p><div id="small"></div></section>
</div>
<h2>Rows and columns that change</h2>
<p class="note">Share of changed entries along the rows (above) and the columns (below) of each matrix, a line for each layer, the first on top. The fuller the colour, the more changed; as full as it gets is twice the mean.</p>
<div class="stripes"></div>`;
  return chartPage({ title: "What training changed", style, body, data: chartsOf(report), script });
}

/** A share in percent, with the digits that it takes to tell it from none and from all. */
export function percent(share: number): string {
  const value = 100 * share;
  const rest = Math.min(value, 100 - value);
  const digits = rest === 0 ? 0 : Math.min(6, Math.max(rest < 10 ? 1 : 0, Math.ceil(-Math.log10(rest)) + 1));
  return `${value.toFixed(digits)}%`;
}

function sentence({ sparsity, storedSparsity, overlaps, boundsHold }: UpdateSummary): string {
  if (storedSparsity === 1) return "The checkpoints are the same in all matrices of their layers.";
  const { principal, small } = overlaps;
  const where =
    principal.share === null || small.share === null
      ? "Not an entry differs as bfloat16."
      : principal.share < principal.chance && small.share > small.chance
        ? "The changes lie off the principal directions: fewer than chance in principal entries, more in small ones."
        : "The changes do not keep off the principal directions.";
  const bounds = boundsHold ? "" : " A bound of perturbation theory is broken: distrust these figures.";
  return `${percent(sparsity)} of the entries are the same as bfloat16, ${percent(storedSparsity)} as they are stored. ${where}${bounds}`;
}

function table(rows: readonly UpdateSummary[]): string {
  const share = (s: UpdateSummary, region: Region): string => {
    const { share: found, chance } = s.overlaps[region];
    return `${found === null ? "–" : percent(found)} <small>${percent(chance)}</small>`;
  };
  const columns: readonly (readonly [string, (s: UpdateSummary) => string])[] = [
    ["matrices", (s) => `${escapeHtml(s.name)} <small>${s.matrices}</small>`],
    ["entries", (s) => s.entries.toLocaleString("en")],
    ["unchanged (bf16)", (s) => percent(s.sparsity)],
    ["as stored", (s) => percent(s.storedSparsity)],
    ["spectral drift", (s) => s.nss.toExponential(2)],
    ["mean angle", (s) => `${Number(s.angle.toPrecision(3))}°`],
    ["size of change", (s) => s.size.toExponential(2)],
    ["its stable rank", (s) => s.stableRank?.toFixed(1) ?? "–"],
    ["in principal", (s) => share(s, "principal")],
    ["in small", (s) => share(s, "small")],
    ["in principal, not small", (s) => share(s, "principalOnly")],
    ["bounds", (s) => (s.boundsHold ? "hold" : "broken")],
  ];
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  const heads = columns.map(([head]) => head);
  return `<table><thead>${line(heads, "th")}</thead><tbody>${rows
    .map((row) =>
      line(
        columns.map(([, of]) => of(row)),
        "td",
      ),
    )
    .join("")}</tbody></table>`;
}

const short = (value: number): number => Number(value.toPrecision(4));

/** What the page's script draws. */
function chartsOf({ matrices }: UpdateReport) {
  const types = [...new Set(matrices.map(({ type }) => type))];
  const layers = [...new Set(matrices.map(({ layer }) => layer ?? 0))].sort((a, b) => a - b);
  const byLayer = (of: (m: MatrixUpdate) => number | null) =>
    types.map((type) => ({
      label: nameOf(type),
      values: layers.map((layer) => {
        const values = matrices
          .filter((m) => m.type === type && (m.layer ?? 0) === layer)
          .map(of)
          .filter((x) => x !== null);
        return values.length === 0 ? null : short(values.reduce((a, b) => a + b, 0) / values.length);
      }),
    }));
  const chance = (region: Region) => ({
    label: "chance",
    dashed: true,
    values: layers.map((layer) =>
      median(matrices.filter((m) => (m.layer ?? 0) === layer).map(({ overlaps }) => overlaps[region].chance)),
    ),
  });
  const longest = Math.max(...matrices.map(({ k }) => k));
  return {
    layers,
    sparsity: byLayer(({ changed, shape }) => 1 - changed / (shape[0] * shape[1])),
    nss: byLayer(({ nss }) => nss),
    angle: byLayer(({ angles }) => angles.mean),
    principal: [...byLayer(({ overlaps }) => overlaps.principal.share), chance("principal")],
    small: [...byLayer(({ overlaps }) => overlaps.small.share), chance("small")],
    directions: Array.from({ length: longest }, (_, i) => i + 1),
    curve: types.map((type) => {
      const curves = matrices.filter((m) => m.type === type).map(({ angles }) => angles.curve);
      return {
        label: nameOf(type),
        values: Array.from({ length: longest }, (_, i) => {
          const middle = median(curves.flatMap((curve) => curve[i] ?? []));
          return middle === null ? null : short(middle);
        }),
      };
    }),
    stripes: types.map((type) => {
      const own = matrices.filter((m) => m.type === type);
      const rounded = (lines: readonly (readonly number[])[]) => lines.map((line) => line.map(short));
      return {
        name: nameOf(type),
        rows: rounded(own.map(({ byRow }) => byRow)),
        columns: rounded(own.map(({ byColumn }) => byColumn)),
      };
    }),
  };
}

const nameOf = (type: string): string => type.replace(/_proj$/, "");

const script = `${chartScript}
function curves(id, xs, series, unit) {
  const host = document.getElementById(id);
  const values = series.flatMap((s) => s.values).filter((v) => v !== null);
  const positive = values.filter((v) => v > 0);
  const logarithmic = positive.length === values.length && Math.max(...positive) > 30 * Math.min(...positive);
  const wide = (u, low, high) => { const room = (high - low || Math.abs(high) || 1) * 0.08; return [low - room, high + room]; };
  draw(host, 260, {
    legend: { live },
    scales: { x: { time: false, range: [Math.min(...xs) - 0.5, Math.max(...xs) + 0.5] }, y: logarithmic ? { distr: 3 } : { range: wide } },
    axes: [
      { ...look.axis, label: unit, incrs: [1, 2, 5, 10, 20, 50, 100] },
      { ...look.axis, size: 70, values: (u, ticks) => ticks.map(significant) },
    ],
    series: [
      { label: unit },
      ...series.map((s, i) => ({ label: s.label, stroke: s.dashed ? look.ink : colour(i), width: 1.5, ...(s.dashed && { dash: [5, 5] }), points: { show: !s.dashed && xs.length < 80, size: 5 }, value: (u, v) => significant(v) })),
    ],
  }, [xs, ...series.map((s) => s.values)]);
}
for (const id of ["sparsity", "nss", "angle", "principal", "small"]) curves(id, data.layers, data[id], "layer");
curves("curve", data.directions, data.curve, "direction");

const [red, green, blue] = look.colours[0].match(/\\w\\w/g).map((c) => parseInt(c, 16));
for (const { name, rows, columns } of data.stripes) {
  const cell = document.createElement("div");
  cell.innerHTML = "<b></b> <small></small>";
  cell.firstChild.textContent = name;
  document.querySelector(".stripes").append(cell);
  const all = rows.flat();
  const mean = all.reduce((sum, v) => sum + v, 0) / all.length;
  cell.children[1].textContent = "mean " + significant(100 * mean) + "% changed";
  for (const lines of [rows, columns]) {
    const canvas = document.createElement("canvas");
    const width = Math.max(...lines.map((line) => line.length));
    canvas.width = width;
    canvas.height = lines.length;
    canvas.style.height = Math.max(14, Math.min(160, 12 * lines.length)) + "px";
    const context = canvas.getContext("2d");
    lines.forEach((line, y) => line.forEach((v, x) => {
      context.fillStyle = "rgba(" + [red, green, blue, mean === 0 ? 0 : Math.min(1, v / (2 * mean))] + ")";
      context.fillRect((x * width) / line.length, y, width / line.length, 1);
    }));
    cell.append(canvas);
  }
}
`;
