import { HostTensor, type Rng } from "../../tensor/index.ts";
import type { BatchSource } from "../../train/index.ts";
import type { Fact, World } from "./world.ts";

/** What a row of a batch is about. */
const kinds = ["text", "facts", "reading", "drill", "choice"] as const;
type Kind = (typeof kinds)[number];

/**
 * Rows of each kind in a batch: windows of plain `text`; `facts` of the world, stated and asked for; made-up facts of
 * strangers, stated again and again in any order (`reading`); the same shortened to a name and a value (`drill`); questions
 * about facts with four choices (`choice`). Each kind counts as much as it has rows.
 */
export interface LessonPlan {
  /** Tokens of a row. */
  readonly length: number;
  readonly rows: Readonly<Partial<Record<Kind, number>>>;
  /** Strangers in a passage or drill. */
  readonly strangers: readonly [fewest: number, most: number];
  /** Names and values that strangers have at most: to look things up is learned far sooner among few. */
  readonly pool: number;
}

/** Rows of a batch that are of the kinds `first` to `last`: from the first of them to before the one behind. */
export function rowsOf({ rows }: Pick<LessonPlan, "rows">, first: Kind, last: Kind): readonly [number, number] {
  const before = (end: number): number => kinds.slice(0, end).reduce((sum, kind) => sum + (rows[kind] ?? 0), 0);
  return [before(kinds.indexOf(first)), before(kinds.indexOf(last) + 1)];
}

export interface Lesson<T = HostTensor> {
  /** `i64 [rows, length]` */
  readonly ids: T;
  readonly targets: T;
  /** `f32 [rows, length]`: what each target counts; all together 1. */
  readonly weights: T;
}

type Line = { readonly ids: number[]; readonly scored: boolean[] };

/** Batches of one stage of training; each is drawn by its own number. */
export class Lessons implements BatchSource<Lesson> {
  readonly #world: World;
  readonly #text: readonly number[];
  readonly #plan: LessonPlan;
  readonly #rng: Rng;
  #step = 0;

  constructor(world: World, text: readonly number[], plan: LessonPlan, rng: Rng) {
    this.#world = world;
    this.#text = text;
    this.#plan = plan;
    this.#rng = rng;
  }

  state(): number {
    return this.#step;
  }

  restore(state: unknown): void {
    this.#step = state as number;
  }

  next(): Lesson {
    const { length, rows: counts } = this.#plan;
    const rng = this.#rng.fork(this.#step);
    const lines: Readonly<Record<Kind, () => Line>> = {
      text: () => this.#textLine(rng),
      facts: () => this.#factLine(rng),
      reading: () => this.#passage(rng, (fact, known) => this.#stated(fact, known)),
      drill: () => this.#passage(rng, (fact, known) => this.#shortened(fact, known)),
      choice: () => this.#choice(rng),
    };
    const total = kinds.reduce((sum, kind) => sum + (counts[kind] ?? 0), 0);
    const ids = HostTensor.zeros("i64", [total, length]);
    const targets = HostTensor.zeros("i64", [total, length]);
    const share = HostTensor.zeros("f32", [total, length]);
    const values = share.data as Float32Array;
    let row = 0;
    for (const kind of kinds) {
      const own = counts[kind] ?? 0;
      const first = row * length;
      let scored = 0;
      for (let i = 0; i < own; i++, row++) {
        const filled = fill(lines[kind], length + 1);
        for (let at = 0; at < length; at++) {
          const k = row * length + at;
          ids.set(k, filled.ids[at]!);
          targets.set(k, filled.ids[at + 1]!);
          if (!filled.scored[at + 1]) continue;
          scored++;
          values[k] = 1;
        }
      }
      for (let k = first; k < row * length; k++) values[k]! *= own / total / Math.max(1, scored);
    }
    this.#step++;
    return { ids, targets, weights: share };
  }

  #textLine(rng: Rng): Line {
    const { length } = this.#plan;
    const start = rng.integer(this.#text.length - length - 1);
    const ids = this.#text.slice(start, start + length + 1);
    return { ids, scored: ids.map(() => true) };
  }

  #factLine(rng: Rng): Line {
    const { facts } = this.#world;
    const fact = facts[rng.integer(facts.length)]!;
    return rng.integer(2) === 0 ? this.#stated(fact, true) : this.#asked(fact);
  }

  #stated(fact: Fact, scored: boolean): Line {
    const parts = this.#world.statement(fact);
    return this.#line([...parts, "\n"], scored ? [parts.indexOf(fact.value)] : []);
  }

  #asked(fact: Fact): Line {
    const parts = ["Q: ", ...this.#world.question(fact), "\nA:", fact.value, "\n"];
    return this.#line(parts, [parts.length - 2, parts.length - 1]);
  }

  #shortened({ person: [, last], value }: Fact, scored: boolean): Line {
    return this.#line([last, value], scored ? [1] : []);
  }

  /** Lines about strangers that fill a row; what a line says counts where it has been said before. */
  #passage(rng: Rng, line: (fact: Fact, known: boolean) => Line): Line {
    const {
      strangers: [fewest, most],
      pool,
      length,
    } = this.#plan;
    const strangers = this.#world.fresh(fewest + rng.integer(most - fewest + 1), rng, pool);
    const lines = strangers.map((fact) => line(fact, false));
    for (let tokens = together(lines).ids.length; tokens <= length; ) {
      const next = line(strangers[rng.integer(strangers.length)]!, true);
      lines.push(next);
      tokens += next.ids.length;
    }
    return together(lines);
  }

  #choice(rng: Rng): Line {
    const { facts } = this.#world;
    const fact = facts[rng.integer(facts.length)]!;
    const { choices, letter } = this.#world.choices(fact, rng);
    const listed = choices.flatMap((choice, i) => [`${"ABCD"[i]}.`, choice, "\n"]);
    const parts = [...this.#world.question(fact), "\n", ...listed, "Answer:", ` ${letter}`, "\n"];
    return this.#line(parts, [parts.length - 2]);
  }

  /** @param scored parts that count, each with nothing before it that its tokens could depend on */
  #line(parts: readonly string[], scored: readonly number[]): Line {
    const line: { ids: number[]; scored: boolean[] } = { ids: [], scored: [] };
    const add = (pieces: readonly string[], counts: boolean): void => {
      for (const id of this.#world.ids(pieces)) {
        line.ids.push(id);
        line.scored.push(counts);
      }
    };
    let from = 0;
    for (const at of scored) {
      add(parts.slice(from, at), false);
      add([parts[at]!], true);
      from = at + 1;
    }
    add(parts.slice(from), false);
    return line;
  }
}

const together = (lines: readonly Line[]): Line => ({
  ids: lines.flatMap(({ ids }) => ids),
  scored: lines.flatMap(({ scored }) => scored),
});

/** Lines one after the other until there are enough tokens. */
function fill(line: () => Line, length: number): Line {
  const lines: Line[] = [];
  for (let tokens = 0; tokens < length; ) {
    const next = line();
    lines.push(next);
    tokens += next.ids.length;
  }
  return together(lines);
}
