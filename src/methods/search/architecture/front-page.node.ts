import { chartPage, escapeHtml } from "../../../train/node.ts";
import { architectureName } from "./architecture.ts";
import { type Trial, trialFront } from "./search.ts";

export interface FrontPage {
  readonly title: string;
  readonly trials: readonly Trial[];
  /** The model that all came from. */
  readonly backbone: { readonly loss: number; readonly ttftMs: number };
}

const style = `
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.8rem; text-align: right; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; font-family: ui-monospace, monospace; }
`;

const script = `
const host = document.getElementById("front");
const sorted = [...data.points].sort((a, b) => a.x - b.x);
const of = (kind) => sorted.map((p) => (p.kind === kind ? p.y : null));
const dots = (label, colour) => ({ label, stroke: colour, paths: () => null, points: { show: true, size: 9, fill: colour } });
const chart = new uPlot({
  width: host.clientWidth, height: 380,
  scales: { x: { time: false, range: (u, low, high) => [low * 0.95, high * 1.05] } },
  axes: [{ ...look.axis, label: "time to the first token, ms" }, { ...look.axis, label: "loss, nats a token", size: 70 }],
  series: [
    { label: "ms" }, dots("tried", look.colours[7]),
    { label: "front", stroke: look.colours[0], width: 1.5, spanGaps: true, points: { show: true, size: 9, fill: look.colours[0] } },
    dots("backbone", look.colours[1]),
  ],
}, [sorted.map((p) => p.x), of("tried"), of("front"), of("backbone")], host);
addEventListener("resize", () => chart.setSize({ width: host.clientWidth, height: 380 }));
`;

/** A page with all trials of a search, their front and the backbone, in one file. */
export function frontPage({ title, trials, backbone }: FrontPage): string {
  const front = trialFront(trials);
  const points = [
    ...trials.map((trial) => ({ x: trial.ttftMs, y: trial.loss, kind: front.includes(trial) ? "front" : "tried" })),
    { x: backbone.ttftMs, y: backbone.loss, kind: "backbone" },
  ];
  const row = (name: string, ttftMs: number, loss: number): string =>
    `<tr><td>${escapeHtml(name)}</td><td>${ttftMs.toFixed(1)}</td><td>${loss.toFixed(3)}</td></tr>`;
  const rows = [
    ...front.map((trial) => row(architectureName(trial.architecture), trial.ttftMs, trial.loss)),
    row("backbone", backbone.ttftMs, backbone.loss),
  ];
  const body = `<h1>${escapeHtml(title)}</h1>
<div id="front"></div>
<h2>The front</h2>
<p>Layers x width x feed-forward width, then each layer's attention: f full, w sliding, - none.</p>
<table><tr><th>architecture</th><th>ms</th><th>loss</th></tr>
${rows.join("\n")}</table>`;
  return chartPage({ title, style, body, data: { points }, script });
}
