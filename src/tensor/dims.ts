import { ShapeError } from "./errors.ts";

/**
 * One dimension: a number, or for inference graphs a name (`"batch"`) or a polynomial over names
 * (`"past+seq"`, `"2*batch*seq"`) in canonical form, so that equal dimensions are equal strings.
 */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** A polynomial: monomial (sorted names joined by `*`, "" for the constant) to coefficient. */
type Polynomial = Map<string, number>;

/** Splits at `separator`, but not inside parentheses, which mark quotients such as `floor(h/2)`. */
function splitOutside(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "(") depth++;
    else if (c === ")") depth--;
    else if (c === separator && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

function parse(dim: Dim): Polynomial {
  const poly: Polynomial = new Map();
  if (typeof dim === "number") {
    if (dim !== 0) poly.set("", dim);
    return poly;
  }
  for (const term of splitOutside(dim, "+")) {
    let coefficient = 1;
    const names: string[] = [];
    for (const factor of splitOutside(term, "*")) {
      const text = factor.trim();
      if (text === "") throw new ShapeError(`"${dim}" is not a dimension`);
      if (/^-?\d+$/.test(text)) coefficient *= Number(text);
      else names.push(text);
    }
    const key = names.sort().join("*");
    poly.set(key, (poly.get(key) ?? 0) + coefficient);
  }
  return poly;
}

/** The names in a monomial. */
function namesOf(key: string): string[] {
  return key === "" ? [] : splitOutside(key, "*");
}

function render(poly: Polynomial): Dim {
  const terms = [...poly].filter(([, c]) => c !== 0).sort(([a], [b]) => (a < b ? 1 : -1));
  if (terms.length === 0) return 0;
  if (terms.length === 1 && terms[0]![0] === "") return terms[0]![1];
  return terms.map(([key, c]) => (key === "" ? `${c}` : c === 1 ? key : `${c}*${key}`)).join("+");
}

/** The canonical form of a dimension as a person may write it. @throws ShapeError */
export function normalizeDim(dim: Dim): Dim {
  const canonical = typeof dim === "number" ? dim : render(parse(dim));
  if (typeof canonical === "number" && (!Number.isSafeInteger(canonical) || canonical < 0))
    throw new ShapeError(`a dimension is a whole, non-negative number or a name, not ${dim}`);
  return canonical;
}

export function addDims(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a + b;
  const sum = parse(a);
  for (const [key, c] of parse(b)) sum.set(key, (sum.get(key) ?? 0) + c);
  return render(sum);
}

export function multiplyDims(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a * b;
  const product: Polynomial = new Map();
  for (const [ka, ca] of parse(a)) {
    for (const [kb, cb] of parse(b)) {
      const key = [...namesOf(ka), ...namesOf(kb)].sort().join("*");
      product.set(key, (product.get(key) ?? 0) + ca * cb);
    }
  }
  return render(product);
}

export function subtractDims(a: Dim, b: Dim): Dim {
  return addDims(a, multiplyDims(-1, b));
}

/** `a / b` where `b` divides `a` as a polynomial, term by term from the highest; undefined where it does not. */
export function divideDims(a: Dim, b: Dim): Dim | undefined {
  if (typeof a === "number" && typeof b === "number") return b !== 0 && a % b === 0 ? a / b : undefined;
  if (a === b) return 1;
  const divisor = leadingTerm(b);
  if (!divisor) return undefined;
  let quotient: Dim = 0;
  let rest = a;
  for (let term = leadingTerm(rest); term; term = leadingTerm(rest)) {
    const names = without(term.names, divisor.names);
    if (!names || term.coefficient % divisor.coefficient !== 0) return undefined;
    const part = render(new Map([[names.join("*"), term.coefficient / divisor.coefficient]]));
    quotient = addDims(quotient, part);
    rest = subtractDims(rest, multiplyDims(part, b));
  }
  return quotient;
}

/** The term of the most factors, among those the last in the alphabet; undefined for 0. */
function leadingTerm(dim: Dim): { coefficient: number; names: string[] } | undefined {
  const order = (x: string[], y: string[]): number => y.length - x.length || (x.join("*") < y.join("*") ? 1 : -1);
  return termsOf(dim).sort((x, y) => order(x.names, y.names))[0];
}

/** `names` with each of `taken` removed once; undefined where one is missing. */
function without(names: readonly string[], taken: readonly string[]): string[] | undefined {
  const left = [...names];
  for (const name of taken) {
    const at = left.indexOf(name);
    if (at < 0) return undefined;
    left.splice(at, 1);
  }
  return left;
}

/** `floor(a / b)` for a positive `b`; where that is not a polynomial, a name that stands for it: `floor(h+1/2)`. */
export function floorDivideDims(a: Dim, b: number): Dim {
  if (typeof a === "number") return Math.floor(a / b);
  return divideDims(a, b) ?? `floor(${a}/${b})`;
}

/** The dividend and the divisor of a name made by `floorDivideDims`, or undefined for any other name. */
export function quotientOf(name: string): { dividend: Dim; divisor: number } | undefined {
  const match = /^floor\((.*)\/(\d+)\)$/.exec(name);
  return match ? { dividend: match[1]!, divisor: Number(match[2]) } : undefined;
}

/** The terms of a dimension's sum: each a coefficient and the names that it multiplies. */
export function termsOf(dim: Dim): { coefficient: number; names: string[] }[] {
  return [...parse(dim)].map(([key, coefficient]) => ({ coefficient, names: namesOf(key) }));
}

/** Product of all dimensions. */
export function sizeOf(shape: Shape): Dim {
  return shape.reduce<Dim>(multiplyDims, 1);
}

export function isStatic(shape: Shape): shape is readonly number[] {
  return shape.every((d) => typeof d === "number");
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/**
 * The shape that broadcasting gives (numpy's rule: align right, 1 stretches), or undefined where two
 * dimensions differ. A name meets itself or 1 only.
 */
export function broadcastShapes(...shapes: Shape[]): Shape | undefined {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  const result: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    let dim: Dim = 1;
    for (const shape of shapes) {
      const d = shape[shape.length - rank + i] ?? 1;
      if (d === 1 || d === dim) continue;
      if (dim !== 1) return undefined;
      dim = d;
    }
    result.push(dim);
  }
  return result;
}

/** The numbers that names stand for, from shapes with names and the shapes really seen. */
export type Bindings = Map<string, number>;

/** Value of a dimension under `bindings`, or undefined where a name in it is unbound. */
export function evaluateDim(dim: Dim, bindings: Bindings): number | undefined {
  if (typeof dim === "number") return dim;
  let total = 0;
  for (const { coefficient, names } of termsOf(dim)) {
    let product = coefficient;
    for (const name of names) {
      const value = bindings.get(name) ?? evaluateQuotient(name, bindings);
      if (value === undefined) return undefined;
      product *= value;
    }
    total += product;
  }
  return total;
}

function evaluateQuotient(name: string, bindings: Bindings): number | undefined {
  const quotient = quotientOf(name);
  const dividend = quotient && evaluateDim(quotient.dividend, bindings);
  return dividend === undefined ? undefined : Math.floor(dividend / quotient!.divisor);
}
