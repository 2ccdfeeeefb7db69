import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

export interface ChartPage {
  readonly title: string;
  /** Styles beyond the page's own. */
  readonly style?: string;
  /** HTML of the body. */
  readonly body: string;
  /** What the script finds as `data`. */
  readonly data: unknown;
  /** Script of the page; it has `uPlot`, `data`, and the page's colours as `look`. */
  readonly script: string;
}

/** Text as it may stand in HTML. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** A page with charts in one file: its chart library is inlined, so that it opens from disk without a network. */
export function chartPage({ title, style = "", body, data, script }: ChartPage): string {
  const folder = dirname(createRequire(import.meta.url).resolve("uplot"));
  const read = (file: string): string => readFileSync(join(folder, file), "utf8");
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escapeHtml(title)}</title>
<style>${read("uPlot.min.css")}
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.5rem 0 0.25rem; }
.u-legend { font-size: 0.85rem; }
${style}</style>
${body}
<script>${read("uPlot.iife.min.js")}</script>
<script>
const data = ${JSON.stringify(data).replace(/</g, "\\u003c")};
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const look = {
  ink: dark ? "#ddd" : "#333",
  grid: { stroke: dark ? "#444" : "#ddd", width: 1 },
  colours: dark
    ? ["#6cb4ff", "#ffb454", "#7fd88f", "#ff8fa3", "#c8a6ff", "#5fd3d3", "#e6d96b", "#b8b8b8"]
    : ["#0b62c4", "#c25e00", "#1c7c34", "#c2264b", "#6b3fc4", "#0f7a7a", "#8a7400", "#666666"],
};
look.axis = { stroke: look.ink, grid: look.grid, ticks: look.grid };
${script}</script>
</html>
`;
}
