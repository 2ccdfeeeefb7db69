/** Styles of tables, notes and charts side by side. */
export const tableStyle = `
.wide { overflow-x: auto; }
.wide table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
.wide th, .wide td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; font-variant-numeric: tabular-nums; }
.wide th:first-child, .wide td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; max-width: 24rem; position: sticky; left: 0; background: Canvas; }
.wide small { opacity: 0.7; }
h1, .samples b, .note, .u-legend th { overflow-wrap: anywhere; }
.u-legend.u-inline tr, .u-legend th { max-width: 100%; }
.swatch { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; margin-right: 0.4em; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0.75rem; }
.samples > div { border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.6rem 0.8rem; background: var(--soft); }
.samples p { margin: 0.3rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.samples em { font-style: normal; opacity: 0.65; }
.note { opacity: 0.75; font-size: 0.9rem; margin: 0.25rem 0 0.5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 1.5rem; }
.pair > * { min-width: 0; }
`;

/** Functions of a page's script: colours, `draw` for a chart that follows its host's width, `lines` over named places. */
export const chartScript = `
const colour = (i) => look.colours[i % look.colours.length];
for (const s of document.querySelectorAll("[data-colour]")) s.style.background = colour(+s.dataset.colour);
const charts = [];
function draw(host, height, options, columns) {
  const chart = new uPlot({ width: host.clientWidth, height, ...options }, columns, host);
  charts.push([chart, host, height]);
}
addEventListener("resize", () => { for (const [chart, host, height] of charts) chart.setSize({ width: host.clientWidth, height }); });
const live = matchMedia("(hover: hover)").matches;
const decades = (u, ticks) => ticks.map((t) => (Math.abs(Math.log10(t) % 1) < 1e-9 ? t : null));
const sparse = { filter: decades, grid: { ...look.grid, filter: decades }, ticks: { ...look.grid, filter: decades } };
const significant = (v) => (v === null || v === undefined ? "" : String(+(+v).toPrecision(4)));

function lines(host, { names, series }, height = 300) {
  const values = series.flatMap((s) => s.values).filter((v) => v > 0);
  const logarithmic = series.every((s) => s.values.every((v) => v === null || v > 0)) && Math.max(...values) > 30 * Math.min(...values);
  draw(host, height, {
    scales: { x: { time: false, range: [-0.5, names.length - 0.5] }, y: logarithmic ? { distr: 3 } : {} },
    axes: [
      { ...look.axis, rotate: -90, size: 90, space: 14, incrs: [1, 2, 4, 7, 14, 28, 56, 112], values: (u, ticks) => ticks.map((t) => names[t] ?? "") },
      { ...look.axis, size: 64, ...(logarithmic ? sparse : {}), values: (u, ticks) => ticks.map(significant) },
    ],
    legend: { live },
    series: [
      { label: "matrix", value: (u, v) => names[v] ?? "" },
      ...series.map((s) => ({ label: s.label, stroke: colour(s.variant), width: 1, points: s.marked ? { show: true, size: 9, fill: colour(s.variant), filter: () => s.marked } : { show: names.length < 80, size: 5 }, value: (u, v) => significant(v) })),
    ],
  }, [names.map((_, i) => i), ...series.map((s) => s.values)]);
}
`;
