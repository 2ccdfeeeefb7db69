import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { LogEntry } from "./trainer.ts";

/** The chart library's files, inlined so that the page opens from disk without a network. */
function library(): { script: string; style: string } {
  const folder = dirname(createRequire(import.meta.url).resolve("uplot"));
  return {
    script: readFileSync(join(folder, "uPlot.iife.min.js"), "utf8"),
    style: readFileSync(join(folder, "uPlot.min.css"), "utf8"),
  };
}

const escapeHtml = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

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

/** A self-contained page with the curves of a training run: loss, gradient norm, learning rate, metrics. */
export function curvePage(title: string, log: readonly LogEntry[]): string {
  const { script, style } = library();
  const data = JSON.stringify(chartsOf(log)).replace(/</g, "\\u003c");
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.5rem 0 0.25rem; }
.u-legend { font-size: 0.85rem; }
</style>
<h1>${escapeHtml(title)}</h1>
<main></main>
<script>${script}</script>
<script>
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#ddd" : "#333", grid = { stroke: dark ? "#444" : "#ddd", width: 1 };
const colours = dark ? ["#6cb4ff", "#ffb454"] : ["#0b62c4", "#c25e00"];
const axis = { stroke: ink, grid, ticks: grid };
const charts = ${data}.map(({ title, steps, series }) => {
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
    axes: [{ ...axis, label: "step" }, { ...axis, size: 70 }],
    series: [{ label: "step" }, ...series.map((s, i) => ({ label: s.label, stroke: colours[i], width: 1.5, spanGaps: true, points: { show: s.values.filter((v) => v !== null).length < 60 } }))],
  }, [steps, ...series.map((s) => s.values)], section.lastChild);
});
addEventListener("resize", () => { for (const c of charts) c.setSize({ width: c.root.parentNode.clientWidth, height: 260 }); });
</script>
</html>
`;
}
