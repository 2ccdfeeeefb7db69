import { disagreementLines, type KickReport, type KickRow, type KickSetting, rowName } from "../evaluate/index.ts";
import { Rng } from "../tensor/index.ts";
import { auditOf, gridsOf, pruning, WINDOW } from "./llm-kick/audit.ts";
import { examOf } from "./llm-kick/exam.ts";
import { layerErrors } from "./llm-kick/layer-errors.ts";
import { selfTests } from "./llm-kick/self-tests.ts";
import { curriculum, type Student, trainStudent } from "./llm-kick/student.ts";
import { calibrationCounts, easyFacts, smallAndSparse } from "./llm-kick/studies.ts";
import type { Check, Finding, Setting, System } from "./system.ts";

/** A small model that knows invented facts and reads, compressed in many ways: what perplexity shows of it, and what tasks do. */
export const llmKick: System = {
  name: "LLM-KICK",
  family: "evaluate",
  summary: "finds out what a compressed language model lost of knowledge and abilities where perplexity hardly moves",
  paper: {
    title: "Compressing LLMs: The Truth is Rarely Pure and Never Simple",
    authors: "Jaiswal, Gan, Du, Zhang, Wang, Yang",
    year: 2024,
    url: "https://arxiv.org/abs/2310.01382",
  },
  file: "src/evaluate/kick/kick.ts",
  command: "pare kick",
  claim:
    "where perplexity is still flat, pruned and rounded models have lost facts; what stands in the text before is found far longer",
  bar: "facts lost by more than 5 % where perplexity rose by no more than 3 %, and open-book answers matching to 10 points more sparsity than facts, each for two of three pruning methods; 8 bits match, 2:4 loses 30 % of the facts, 4 bits lose more facts than perplexity rises; tasks and perplexity rank methods differently somewhere",
  experiment: (setting) => new Experiment(setting).run(),
};

/** Score from which on the dense model counts as able to find answers in the text before. */
const OPEN_BOOK = 0.8;

class Experiment {
  readonly #setting: Setting;
  readonly #checks: Check[] = [];
  readonly #notes: string[] = [];

  constructor(setting: Setting) {
    this.#setting = setting;
  }

  async run(): Promise<Finding> {
    const { seed, full, log } = this.#setting;
    const plan = curriculum(400, 2);
    const student = await trainStudent(this.#setting, plan);
    const { world, parameters } = student;
    log(`${world.facts.length} facts in ${parameters} parameters`);
    const size = { mcq: 100, closed: 100, open: 200 };
    const report = await auditOf(this.#setting, student, {
      size,
      grids: full ? allGrids : fewGrids,
      ...(full && { runs: 3, windows: 256, tokens: 30_000 }),
    });
    this.#dense(report, student);
    this.#hidden(report);
    this.#openBook(report);
    this.#formats(report);
    const errors = await layerErrors(student, WINDOW);
    this.#check(
      `share of ${errors.matrices} matrices whose errors rise from SparseGPT to Wanda to magnitude`,
      errors.ordered,
      0.8,
      (a, b) => a >= b,
    );
    const known = await selfTests(examOf(world, size, new Rng(seed).fork("exam")), world.tokenizer, new Rng(seed));
    this.#check("least score of an oracle", known.oracle, 1, (a, b) => a === b);
    this.#check("largest score of a model that says nothing", known.silent, 0, (a, b) => a === b);
    this.#check(
      "share of models that draw letters with a quarter within their 95 % interval",
      known.guessers,
      0.9,
      (a, b) => a >= b,
    );
    // Of tasks that the dense model can do: what is near chance cannot be lost.
    const disagreements = report.disagreements.filter(({ score }) => score === "factoid");
    const lines = disagreementLines({ ...report, disagreements });
    this.#check("pairs that factoid and perplexity rank differently", lines.length, 1, (a, b) => a >= b);
    const studies = full
      ? {
          ...(await easyFacts(this.#setting)),
          ...(await calibrationCounts(this.#setting, student)),
          ...(await smallAndSparse(this.#setting, student, plan)),
        }
      : {};
    return {
      checks: this.#checks,
      metrics: {
        facts: world.facts.length,
        "parameters per fact": parameters / world.facts.length,
        "dense perplexity": report.dense.perplexity,
        ...Object.fromEntries(
          Object.entries(report.dense.scores).map(([key, { value: of }]) => [`dense ${key}`, of ?? 0]),
        ),
        ...Object.fromEntries(report.rows.map((row) => [`${rowName(row)}: factoid`, row.scores["factoid"]!.mean!])),
        ...Object.fromEntries(
          report.rows.map((row) => [`${rowName(row)}: open book`, row.scores["icrqa-open"]!.mean!]),
        ),
        ...studies,
      },
      baseline: Object.fromEntries(
        report.rows.map((row) => [`${rowName(row)}: rise of perplexity`, row.perplexityRise]),
      ),
      notes: [...this.#notes, ...lines],
    };
  }

  #check(what: string, ours: number, baseline: number, holds: (ours: number, baseline: number) => boolean): void {
    this.#checks.push({ what, ours, baseline, holds: holds(ours, baseline) });
  }

  /** What the dense model knows and can do. */
  #dense({ dense }: KickReport, { world }: Student): void {
    const { factoid, mcq: choices, "icrqa-closed": closed, "icrqa-open": open } = dense.scores;
    const chance = 1 / world.values;
    this.#check(
      "dense factoid at least 0.1 and 20 times chance",
      factoid!.value!,
      Math.max(0.1, 20 * chance),
      (a, b) => a >= b,
    );
    this.#check("dense factoid at most", factoid!.value!, 0.85, (a, b) => a <= b);
    this.#check(
      "closed book on strangers, and the best guess without looking",
      closed!.value!,
      world.chance,
      (_, b) => closed!.low! <= b,
    );
    if (choices!.low! <= 0.25)
      this.#notes.push(`multiple choice: at chance (${choices!.value}) already in the dense model`);
    this.#check("dense open book", open!.value!, OPEN_BOOK, (a, b) => a >= b);
  }

  /** Facts lost where perplexity shows nothing. */
  #hidden({ rows }: KickReport): void {
    const methods = pruning.filter((method) =>
      rows.some((row) => row.method === method && row.perplexityRise <= 0.03 && row.scores["factoid"]!.drop! > 0.05),
    );
    this.#check("pruning methods that lose 5 % of facts at 3 % perplexity", methods.length, 2, (a, b) => a >= b);
  }

  /** What is in the text before outlasts what is in the weights. */
  #openBook({ maxMatching, dense }: KickReport): void {
    const learned = dense.scores["icrqa-open"]!.value! >= OPEN_BOOK;
    if (!learned)
      this.#notes.push("open book: not learned by the dense model, so that nothing of it can outlast facts");
    const most = (method: string, score: string): number => maxMatching[method]?.[score] ?? 0;
    const methods = pruning.filter(
      (method) => learned && most(method, "icrqa-open") >= most(method, "factoid") + 0.1 - 1e-9,
    );
    this.#check("pruning methods whose open book matches 10 points longer", methods.length, 2, (a, b) => a >= b);
  }

  #formats({ rows }: KickReport): void {
    const row = (method: string, setting: KickSetting): KickRow =>
      rows.find((one) => one.method === method && JSON.stringify(one.setting) === JSON.stringify(setting))!;
    const lost = (one: KickRow): number => one.scores["factoid"]!.drop!;
    const eight = row("nearest", { bits: 8 });
    this.#check("facts lost at 8 bits", lost(eight), 0.05, (a, b) => a <= b);
    this.#check("rise of perplexity at 8 bits", eight.perplexityRise, 0.05, (a, b) => a <= b);
    for (const method of ["magnitude", "wanda"])
      this.#check(`facts lost by ${method} at 2:4`, lost(row(method, { pattern: "2:4" })), 0.3, (a, b) => a >= b);
    const four = row("nearest", { bits: 4 });
    this.#check("facts lost at 4 bits, and the rise of perplexity", lost(four), four.perplexityRise, (a, b) => a > b);
  }
}

const steps = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4];
const fewGrids = gridsOf(steps, [8, 4]);
const allGrids = gridsOf([...steps, 0.5, 0.6, 0.7], [8, 4, 3, 2], [8, 4, 3, 2]);
