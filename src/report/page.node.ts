import { paretoFront } from "../methods/index.ts";
import { chartPage, escapeHtml } from "../train/node.ts";
import { chartScript, tableStyle } from "./pieces.node.ts";
import type { CacheEffect, Interval, Report, Variant } from "./report.ts";

/** A self-contained page of a report: table, Pareto plots, errors by layer, histograms and samples. */
export function reportPage(report: Report): string {
  const { title, machine, text, prompt, variants, cache } = report;
  const body = `<h1>${escapeHtml(title)}</h1>
<p class="note">Perplexity on ${text.tokens.toLocaleString("en")} tokens of ${escapeHtml(text.name)}, with 95% intervals. Measured on ${escapeHtml(machine)}.</p>
<div class="wide">${table(variants)}</div>
${cache ? cacheNote(cache) : ""}
<div class="pair"><section><h2>Size against perplexity</h2><div id="size"></div></section>
<section id="speeds"><h2>Speed against perplexity</h2><div id="speed"></div></section></div>
<section id="layers"><h2>Output error by matrix</h2><p class="note">How far a compressed matrix's output is from the original's on calibration text, relative to it.</p><div></div></section>
<section id="sensitivities"><h2>Sensitivity by matrix</h2><p class="note">Increase of the loss, in nats a token, when this matrix alone is rounded to nearest. Points mark what each matrix got.</p><div></div></section>
<section id="histograms"></section>
<h2>The same beginning, continued</h2>
<div class="samples">${variants.map((v, i) => sample(v, i, prompt)).join("")}</div>`;
  return chartPage({ title, style: tableStyle, body, data: chartsOf(report), script });
}

const swatch = (index: number): string => `<span class="swatch" data-colour="${index}"></span>&#8288;`;

function table(variants: readonly Variant[]): string {
  const heads = [
    "model",
    "size",
    "bits/weight",
    "perplexity",
    "KL to original",
    "same top token",
    "decode",
    "prefill",
    "load",
    "memory",
  ];
  const rows = variants.map((v, i) => [
    `${swatch(i)}${escapeHtml(v.name)}`,
    megabytes(v.bytes),
    v.bitsPerWeight.toFixed(2),
    interval(v.perplexity, (x) => x.toFixed(2)),
    optional(v.kl, (kl) => interval(kl, (x) => x.toFixed(4))),
    optional(v.topAgreement, (share) => `${(100 * share.value).toFixed(1)}%`),
    optional(v.speed, ({ decode }) => `${Math.round(decode)} tokens/s`),
    optional(v.speed, ({ prefill }) => `${Math.round(prefill)} tokens/s`),
    optional(v.loadSeconds, (s) => `${s.toFixed(2)} s`),
    optional(v.peakBytes, megabytes),
  ]);
  // A column that nothing was measured for says nothing.
  const shown = heads.map((_, c) => rows.some((row) => row[c] !== NOTHING));
  const line = (cells: readonly string[], tag: "th" | "td"): string =>
    `<tr>${cells.flatMap((cell, c) => (shown[c] ? `<${tag}>${cell}</${tag}>` : [])).join("")}</tr>`;
  return `<table><thead>${line(heads, "th")}</thead><tbody>${rows.map((row) => line(row, "td")).join("")}</tbody></table>`;
}

const NOTHING = "–";
const optional = <T>(value: T | null, show: (value: T) => string): string => (value === null ? NOTHING : show(value));
const interval = ({ value, low, high }: Interval, show: (value: number) => string): string =>
  `${show(value)} <small>${show(low)}–${show(high)}</small>`;

/** Bytes as megabytes of a million, or smaller units where that says more. */
export function megabytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}

/** What a cache in 8 bits does, in words. */
function cacheNote({ variant, tokens, bytesPerToken, perplexity, kl, topAgreement }: CacheEffect): string {
  const times = (bytesPerToken.f32 / bytesPerToken.int8).toFixed(1);
  return `<p class="note">Keys and values in 8 bits, with the weights of ${escapeHtml(variant)}: ${megabytes(bytesPerToken.int8)} for each token of context instead of ${megabytes(bytesPerToken.f32)}, ${times} times less. On ${tokens} tokens, read one by one, perplexity is ${perplexity.int8.toFixed(3)} instead of ${perplexity.f32.toFixed(3)}, KL divergence ${kl.toExponential(1)} nats, and the most likely token the same in ${(100 * topAgreement).toFixed(1)}% of places.</p>`;
}

function sample({ name, sample: text }: Variant, index: number, prompt: string): string {
  return `<div>${swatch(index)}<b>${escapeHtml(name)}</b><p><em>${escapeHtml(prompt)}</em>${escapeHtml(text)}</p></div>`;
}

interface Scatter {
  readonly points: readonly {
    readonly name: string;
    readonly x: number;
    readonly y: number;
    readonly variant: number;
  }[];
  /** Names of the points on the Pareto front, in the order of `x`. */
  readonly front: readonly string[];
}

/** What the page's script draws. */
function chartsOf({ variants, histograms, sensitivity }: Report) {
  const colour = new Map(variants.map(({ name }, i) => [name, i]));
  const all = variants.map((v, i) => ({ name: v.name, x: v.bytes / 1e6, y: v.perplexity.value, variant: i }));
  const fast = variants.flatMap((v, i) =>
    v.speed ? [{ name: v.name, x: v.speed.decode, y: v.perplexity.value, variant: i }] : [],
  );
  const names = (points: readonly { readonly name: string }[]): string[] => points.map(({ name }) => name);
  const matrices = [...new Set(variants.flatMap((v) => Object.keys(v.layerErrors)))];
  const sensitive = [...new Set(sensitivity.flatMap((s) => Object.keys(s.increase)))];
  return {
    size: {
      points: all,
      front: names(
        paretoFront(
          all,
          (p) => p.x,
          (p) => p.y,
        ),
      ),
    } satisfies Scatter,
    speed: {
      points: fast,
      front: names(
        paretoFront(
          fast,
          (p) => -p.x,
          (p) => p.y,
        ),
      ).reverse(),
    } satisfies Scatter,
    layers: {
      names: matrices.map(shortName),
      series: variants.flatMap((v, variant) =>
        Object.keys(v.layerErrors).length > 0
          ? [{ label: v.name, variant, values: matrices.map((name) => v.layerErrors[name] ?? null) }]
          : [],
      ),
    },
    sensitivity: {
      names: sensitive.map(shortName),
      series: sensitivity.map((s, i) => ({
        label: s.format,
        variant: i + 2,
        values: sensitive.map((name) => s.increase[name] ?? null),
        marked: s.chosen.map((name) => sensitive.indexOf(name)).sort((a, b) => a - b),
      })),
    },
    histograms: histograms.map(({ title, edges, counts }) => ({
      title,
      middles: edges.slice(1).map((edge, i) => (edge + edges[i]!) / 2),
      series: Object.entries(counts).map(([label, values]) => ({ label, variant: colour.get(label) ?? 0, values })),
    })),
  };
}

/** `model.layers.3.mlp.up_proj.weight` as `3 mlp.up`. */
function shortName(name: string): string {
  return name
    .replace(/^model\.(layers\.)?/, "")
    .replace(/\.weight$/, "")
    .replace(/_proj$/, "")
    .replace("self_attn", "attn")
    .replace("embed_tokens", "embedding")
    .replace("lm_head", "head")
    .replace(/^(\d+)\./, "$1 ");
}

const script = `${chartScript}
function scatter(host, { points, front }, unit) {
  const sorted = [...points].sort((a, b) => a.x - b.x);
  const xs = sorted.map((p) => p.x);
  const wide = Math.max(...xs) > 8 * Math.min(...xs);
  const spread = sorted.map((p) => p.y);
  const tall = Math.max(...spread) > 8 * Math.min(...spread);
  const line = sorted.map((p) => (front.includes(p.name) ? p.y : null));
  const labels = (u) => {
    const { ctx } = u;
    ctx.save();
    ctx.font = 12 * devicePixelRatio + "px system-ui, sans-serif";
    ctx.fillStyle = look.ink;
    ctx.textAlign = "left";
    const taken = [];
    for (const p of sorted) {
      const x = u.valToPos(p.x, "x", true), y = u.valToPos(p.y, "y", true);
      let name = p.name;
      while (name.length > 8 && ctx.measureText(name).width > 0.6 * u.bbox.width) name = "…" + name.slice(name.length - Math.floor(0.9 * name.length) + 1);
      const width = ctx.measureText(name).width, gap = 9 * devicePixelRatio, height = 14 * devicePixelRatio;
      const left = x + gap + width > u.bbox.left + u.bbox.width ? x - gap - width : x + gap;
      const shifts = [0, 1, -1, 2, -2, 3, -3];
      const free = shifts.find((s) => {
        const top = y + s * height;
        return top > u.bbox.top + height && top < u.bbox.top + u.bbox.height && !taken.some((t) => left < t[0] + t[2] && t[0] < left + width && Math.abs(top - t[1]) < height);
      }) ?? 0;
      const at = y + free * height;
      taken.push([left, at, width]);
      ctx.fillText(name, left, at + 4 * devicePixelRatio);
    }
    ctx.restore();
  };
  const padded = (distr) => (u, low, high) => distr === 3 ? [low / 1.3, high * 1.3] : [low - (high - low || low) * 0.12, high + (high - low || high) * 0.12];
  draw(host, 340, {
    legend: { show: false }, cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false, distr: wide ? 3 : 1, range: padded(wide ? 3 : 1) }, y: { distr: tall ? 3 : 1, range: padded(tall ? 3 : 1) } },
    axes: [
      { ...look.axis, label: unit, values: (u, ticks) => ticks.map(significant) },
      { ...look.axis, label: "perplexity", size: 64, values: (u, ticks) => ticks.map(significant) },
    ],
    series: [
      {},
      { label: "front", stroke: look.ink, width: 1, dash: [4, 4], spanGaps: true, points: { show: false } },
      ...sorted.map((p) => ({ label: p.name, stroke: colour(p.variant), paths: () => null, points: { show: true, size: 10, fill: colour(p.variant) } })),
    ],
    hooks: { draw: [labels] },
  }, [xs, line, ...sorted.map((_, at) => sorted.map((p, i) => (i === at ? p.y : null)))]);
}

const hide = (id) => document.getElementById(id).remove();
scatter(document.getElementById("size"), data.size, "megabytes");
if (data.speed.points.length > 1) scatter(document.getElementById("speed"), data.speed, "tokens a second");
else hide("speeds");
if (data.layers.series.length > 0) lines(document.querySelector("#layers div"), data.layers);
else hide("layers");
if (data.sensitivity.series.length > 0) lines(document.querySelector("#sensitivities div"), data.sensitivity);
else hide("sensitivities");
for (const { title, middles, series } of data.histograms) {
  const section = document.createElement("section");
  section.innerHTML = "<h2></h2><div></div>";
  section.firstChild.textContent = title;
  document.getElementById("histograms").append(section);
  draw(section.lastChild, 240, {
    legend: { live },
    scales: { x: { time: false }, y: { distr: 3, log: 10, range: (u, low, high) => [0.5, Math.max(10, high * 1.5)] } },
    axes: [{ ...look.axis, values: (u, ticks) => ticks.map(significant) }, { ...look.axis, size: 64, ...sparse, values: (u, ticks) => ticks.map((t) => (t === null ? "" : t.toLocaleString("en"))) }],
    series: [{ label: "value", value: (u, v) => significant(v) }, ...series.map((s) => ({ label: s.label, stroke: colour(s.variant), width: 1.2, paths: uPlot.paths.stepped({ align: 0 }), points: { show: false } }))],
  }, [middles, ...series.map((s) => s.values.map((v) => Math.max(v, 0.5)))]);
}
`;
