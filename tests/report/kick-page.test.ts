import { describe, expect, it } from "vitest";
import type { KickReport, KickRow } from "../../src/evaluate/index.ts";
import { disagreementLines, disagreementsOf, maxMatchingOf } from "../../src/evaluate/index.ts";
import { type KickDocument, kickPage } from "../../src/report/node.ts";

function row(method: string, setting: KickRow["setting"], rise: number, facts: number, open: number): KickRow {
  const score = (mean: number, dense: number) => ({
    mean,
    std: 0.01,
    ci95: [mean - 0.03, mean + 0.03] as const,
    drop: (dense - mean) / dense,
    matching: (dense - mean) / dense <= 0.05,
    excluded: 0,
    groups: {},
  });
  return {
    method,
    setting,
    achievedSparsity: setting.sparsity ?? 0,
    bitsPerWeight: setting.bits ?? 32,
    perplexity: 20 * (1 + rise),
    perplexityStd: 0,
    perplexityRise: rise,
    runs: 1,
    scores: { factoid: score(facts, 0.6), "icrqa-open": score(open, 0.9) },
  };
}

const rows = [
  row("magnitude", { sparsity: 0.1 }, 0.001, 0.58, 0.9),
  row("magnitude", { sparsity: 0.3 }, 0.03, 0.5, 0.89),
  row("magnitude", { sparsity: 0.5 }, 0.25, 0.35, 0.85),
  row("wanda", { sparsity: 0.1 }, 0.001, 0.57, 0.9),
  row("wanda", { sparsity: 0.3 }, 0.02, 0.4, 0.9),
  row("wanda", { sparsity: 0.5 }, 0.2, 0.2, 0.88),
  row("nearest <b>", { bits: 8 }, 0, 0.6, 0.9),
  row("nearest <b>", { bits: 4 }, 0.02, 0.42, 0.9),
];
const dense = (value: number) => ({
  value,
  low: value - 0.03,
  high: value + 0.03,
  items: 400,
  excluded: 0,
  groups: {},
});
const report: KickReport = {
  eps: 0.05,
  dense: { perplexity: 20, scores: { factoid: dense(0.6), "icrqa-open": dense(0.9) } },
  rows,
  maxMatching: maxMatchingOf(rows),
  disagreements: disagreementsOf(rows),
  warnings: ["factoid: 12 items say little; see how wide the intervals are"],
};

/** A page of an audit that never was. */
export const kickDocument: KickDocument = {
  model: "tiny & co",
  machine: "a machine",
  text: { name: "held-out.txt", tokens: 16_384 },
  items: { factoid: 400, "icrqa-open": 400 },
  judgeCalls: null,
  report,
};

describe("the page of an audit", () => {
  it("says where perplexity misleads", () => {
    expect(disagreementLines(report)).toContain(
      "wanda at 30 % has the lower perplexity (20.4 against 20.6 of magnitude at 30 %), but the worse factoid (0.4 against 0.5)",
    );
  });

  it("holds all numbers, and nothing from elsewhere", () => {
    const page = kickPage(kickDocument);
    expect(page).toContain("What compression took from tiny &#38; co");
    expect(page).toContain("nearest &#60;b&#62; at 4 bits");
    expect(page).toContain('<td class="lost">0.4 <small>0.37–0.43</small></td>');
    expect(page).toContain("factoid: 12 items say little");
    expect(page).toContain("<td>magnitude</td><td>10%</td><td>30%</td>");
    expect(page).not.toMatch(/(src|href)="http/);
  });

  it("says so where they agree", () => {
    expect(kickPage({ ...kickDocument, report: { ...report, disagreements: [] } })).toContain("Nowhere beyond doubt");
  });
});
