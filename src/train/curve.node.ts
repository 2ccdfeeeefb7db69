import { chartPage, escapeHtml } from "./chart-page.node.ts";
import type { LogEntry } from "./trainer.ts";

interface Chart {
  readonly title: string;
  readonly steps: readonly number[];
  readonly series: readonly { readonly label: string; readonly values: readonly (number | null)[] }[];
}

/** One chart per quantity; what training and evaluation both report shares one. */
function chartsOf(log: readonly LogEntry[]): Chart[] {
  const names = [...new Set(log.flatMap((e) => Object.keys(e.values)))];
  return names.map((name) => {
    const kinds = (["train", "evaluate"] as const).filter((kind) =>
      log.some((e) => e.kind === kind && name in e.values),
    );
    const steps = [...new Set(log.filter((e) => name in e.values).map((e) => e.step))].sort((a, b) => a - b);
    const series = kinds.map((kind) => {
      const values = new Map(log.filter((e) => e.kind === kind).map((e) => [e.step, e.values[name]]));
      return { label: kind, values: steps.map((s) => values.get(s) ?? null) };
    });
    return { title: name, steps, series };
  });
}

const script = `
const charts = data.map(({ title, steps, series }) => {
  const section = document.createElement("section");
  section.innerHTML = "<h2></h2><div></div>";
  section.firstChild.textContent = title;
  document.querySelector("main").append(section);
  const positive = series.every((s) => s.values.every((v) => v === null || v > 0));
  const spread = series.flatMap((s) => s.values).filter((v) => v !== null);
  const logarithmic = positive && Math.max(...spread) > 30 * Math.min(...spread);
  return new uPlot({
    width: section.clientWidth, height: 260,
    scales: { x: { time: false }, y: logarithmic ? { distr: 3 } : {} },
    axes: [{ ...look.axis, label: "step" }, { ...look.axis, size: 70 }],
    series: [{ label: "step" }, ...series.map((s, i) => ({ label: s.label, stroke: look.colours[i], width: 1.5, spanGaps: true, points: { show: s.values.filter((v) => v !== null).length < 60 } }))],
  }, [steps, ...series.map((s) => s.values)], section.lastChild);
});
addEventListener("resize", () => { for (const c of charts) c.setSize({ width: c.root.parentNode.clientWidth, height: 260 }); });
`;

/** A self-contained page with the curves of a training run: loss, gradient norm, learning rate, metrics. */
export function curvePage(title: string, log: readonly LogEntry[]): string {
  return chartPage({ title, body: `<h1>${escapeHtml(title)}</h1>\n<main></main>`, data: chartsOf(log), script });
}
