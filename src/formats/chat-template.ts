import { PareError } from "../tensor/errors.ts";
import {
  Environment,
  type FunctionValue,
  Interpreter,
  type Node,
  parse,
  type StringValue,
  tokenize,
  type Value,
} from "./hf-jinja.ts";
import { templateLimits } from "./hf-limits.ts";

/** A chat template that is malformed, that refuses the conversation, or that asks for too much. */
export class ChatTemplateError extends PareError {
  override readonly code = "CHAT_TEMPLATE";
}

/** The fields of a node that metering looks at. */
type Fields<K extends string> = Node & { readonly [key in K]: Node };
/** A filter by its name, alone or with arguments. */
type Filter = Node &
  ({ readonly value: string } | { readonly callee: Node & { readonly value: string }; readonly args: readonly Node[] });

/** A node that has been evaluated already. */
interface Evaluated extends Node {
  readonly value: Value;
}

const evaluated = (value: Value): Evaluated => ({ type: "Evaluated", value });

/** What an entry of a list or mapping counts for beside its text, in characters, for the memory it takes. */
const entryWork = 64;

/** Filters that take a part of their operand without reading the rest. */
const taking = new Set(["length", "first", "last"]);

/** Filters whose result, or whose time, can be as large as their operand times their arguments. */
const multiplying = new Set(["replace", "join", "indent", "tojson", "map", "sort"]);

/** A compiled chat template in Jinja, the language of Hugging Face's `chat_template`. */
export class ChatTemplate {
  readonly source: string;
  readonly #program: Node;

  /** @throws ChatTemplateError when the template is too long or does not parse */
  constructor(source: string) {
    if (source.length > templateLimits.sourceLength) {
      throw new ChatTemplateError(
        `the chat template has ${source.length} characters, over the limit of ${templateLimits.sourceLength}`,
      );
    }
    if (source.split(/\S+/).some((run) => run.length > templateLimits.whitespaceRun)) {
      throw new ChatTemplateError(`the chat template has more than ${templateLimits.whitespaceRun} spaces in a row`);
    }
    this.source = source;
    this.#program = explained("the chat template does not parse", () =>
      parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })),
    );
  }

  /**
   * Renders the template with `variables`, which are data as JSON has it. Templates come with model files and are not
   * trusted: they reach nothing but the variables, and both the nodes that they evaluate and the text that these move
   * are counted, so that a rendering ends in bounded time and memory. `now` is the time that `strftime_now` gives.
   * @throws ChatTemplateError when the template fails, refuses the conversation, or goes over a limit
   */
  render(variables: Readonly<Record<string, unknown>>, now = new Date()): string {
    const output = explained("the chat template failed", () => {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value);
      environment.set("strftime_now", (format: string) => strftime(format, now));
      return new MeteredInterpreter(environment, this.source.length).evaluate(this.#program, environment)
        .value as string;
    });
    if (output.length > templateLimits.outputLength) {
      throw new ChatTemplateError(
        `the chat template made ${output.length} characters, over the limit of ${templateLimits.outputLength}`,
      );
    }
    return output;
  }
}

const globals: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: string) => {
    throw new ChatTemplateError(`the chat template refuses the conversation: ${message}`);
  },
  range,
};

/** Runs `action`; whatever it throws, running out of stack included, becomes a ChatTemplateError. */
function explained<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    if (cause instanceof ChatTemplateError) throw cause;
    const reason = cause instanceof RangeError ? "it nests too deeply" : (cause as Error).message;
    throw new ChatTemplateError(`${what}: ${reason}`, { cause });
  }
}

/** The size of a value in characters, and the entries of the lists and mappings in it. */
interface Size {
  readonly characters: number;
  readonly entries: number;
}

/**
 * Jinja's interpreter with two meters: nodes evaluated, and characters read and written. Every value that a node
 * gives is paid for by its size, except where only a part of it is taken; operations that multiply sizes are paid for
 * before they start.
 */
class MeteredInterpreter extends Interpreter {
  #steps = 0;
  #work = 0;
  #depth = 0;
  readonly #sourceLength: number;
  /** Sizes of lists and mappings, which never change once made. */
  readonly #sizes = new WeakMap<Value, Size>();
  readonly #guarded = new WeakSet<Value>();

  constructor(environment: Environment, sourceLength: number) {
    super(environment);
    this.#sourceLength = sourceLength;
  }

  override evaluate(node: Node | undefined, environment: Environment): Value {
    const value = this.#evaluate(node, environment);
    this.#payFor(value);
    return value;
  }

  #payFor(value: Value): void {
    this.#pay(this.#sizeOf(value).characters);
  }

  #pay(characters: number): void {
    this.#work += characters;
    if (this.#work > templateLimits.work) {
      throw new ChatTemplateError(`the chat template moves more than ${templateLimits.work} characters`);
    }
  }

  #count(steps: number): void {
    this.#steps += steps;
    if (this.#steps > templateLimits.steps) {
      throw new ChatTemplateError(`the chat template takes more than ${templateLimits.steps} steps`);
    }
  }

  /** The value of a node, which the caller pays for. */
  #evaluate(node: Node | undefined, environment: Environment): Value {
    this.#count(1);
    // The interpreter itself takes running out of stack for an undefined variable.
    if (this.#depth === templateLimits.depth) {
      throw new ChatTemplateError(`the chat template nests deeper than ${templateLimits.depth} steps`);
    }
    this.#depth++;
    try {
      return this.#evaluateKind(node, environment);
    } finally {
      this.#depth--;
    }
  }

  #evaluateKind(node: Node | undefined, environment: Environment): Value {
    switch (node?.type) {
      case "Evaluated":
        return (node as Evaluated).value;
      case "MemberExpression": {
        const object = this.#evaluate((node as Fields<"object">).object, environment);
        const member = super.evaluate({ ...node, object: evaluated(object) } as Node, environment);
        if (object.type === "StringValue" && member.type === "FunctionValue") {
          this.#guard(object as StringValue, member as FunctionValue);
        }
        return member;
      }
      case "FilterExpression": {
        const { operand, filter } = node as Fields<"operand"> & { readonly filter: Filter };
        return this.#filter(this.#evaluate(operand, environment), filter, environment);
      }
      case "FilterStatement": {
        const { body, filter } = node as Node & { readonly body: readonly Node[]; readonly filter: Filter };
        return this.#filter(this.#evaluate({ type: "Program", body } as Node, environment), filter, environment);
      }
      case "For":
        return this.#loop(node as Fields<"iterable">, environment);
      case "Macro":
      case "CallStatement":
        // Their definitions are searched from end to end each time.
        this.#pay(this.#sourceLength);
        return super.evaluate(node, environment);
      case "Set":
        return this.#set(node as Fields<"assignee" | "value">, environment);
      default:
        return super.evaluate(node, environment);
    }
  }

  /** Counts the turns of a loop before it begins. */
  #loop(node: Fields<"iterable">, environment: Environment): Value {
    const { iterable } = node;
    const filtered = iterable.type === "SelectExpression";
    const over = this.evaluate(filtered ? (iterable as Fields<"lhs">).lhs : iterable, environment);
    const turns = Array.isArray(over.value) ? over.value.length : over.value instanceof Map ? over.value.size : 0;
    this.#count(turns * templateLimits.stepsPerTurn);
    const known = filtered ? { ...iterable, lhs: evaluated(over) } : evaluated(over);
    return super.evaluate({ ...node, iterable: known } as Node, environment);
  }

  #filter(operand: Value, filter: Filter, environment: Environment): Value {
    const name = "callee" in filter ? filter.callee.value : filter.value;
    if (!taking.has(name)) this.#payFor(operand);
    let applied: Node = filter;
    if ("callee" in filter && multiplying.has(name)) {
      const args = filter.args.map((arg) => this.#argument(arg, environment));
      this.#pay(args.reduce((sum, { value }) => sum + this.#sizeOf(operand).characters * magnitude(value), 0));
      applied = { ...filter, args: args.map(({ node }) => node) } as Node;
    }
    return super.evaluate(
      { type: "FilterExpression", operand: evaluated(operand), filter: applied } as Node,
      environment,
    );
  }

  /** An argument of a call, evaluated, in a node of the kind that it came in. */
  #argument(arg: Node, environment: Environment): { node: Node; value: Value } {
    const field =
      arg.type === "KeywordArgumentExpression" ? "value" : arg.type.includes("Spread") ? "argument" : undefined;
    const value = this.evaluate(field ? (arg as Fields<typeof field>)[field] : arg, environment);
    return { node: field ? ({ ...arg, [field]: evaluated(value) } as Node) : evaluated(value), value };
  }

  /** Makes a method of a string pay for reading it, and for what `split` and `replace` can make of it. */
  #guard(text: StringValue, method: FunctionValue): void {
    if (this.#guarded.has(method)) return;
    this.#guarded.add(method);
    const { length } = text.value;
    const makes = ([first, second]: readonly Value[]): number => {
      const times = length / Math.max(1, first ? magnitude(first) : 1);
      if (text.builtins.get("split") === method) return times * entryWork;
      return text.builtins.get("replace") === method && second ? times * magnitude(second) : 0;
    };
    const run = method.value;
    method.value = (args, scope) => {
      this.#pay(length + makes(args));
      return run(args, scope);
    };
  }

  /** Namespaces change, so that lists that held them could grow unseen. */
  #set(node: Fields<"assignee" | "value">, environment: Environment): Value {
    if (node.assignee.type !== "MemberExpression" || !node.value) return super.evaluate(node, environment);
    const value = this.evaluate(node.value, environment);
    if (value.type === "NamespaceValue") refuseNamespace();
    return super.evaluate({ ...node, value: evaluated(value) } as Node, environment);
  }

  /**
   * Text counts by its length and entries by `entryWork`, with one more for each list or mapping around them: what
   * printing adds in indentation.
   */
  #sizeOf(value: Value): Size {
    const content: unknown = value.value;
    if (typeof content === "string") return { characters: content.length, entries: 0 };
    const inside = Array.isArray(content) ? content : content instanceof Map ? [...content.values()] : [];
    if (inside.length === 0) return { characters: 0, entries: 0 };
    const known = this.#sizes.get(value);
    if (known) return known;
    let characters = 0;
    let entries = 0;
    for (const entry of inside as Value[]) {
      if (entry.type === "NamespaceValue") refuseNamespace();
      const size = this.#sizeOf(entry);
      characters += entryWork + size.characters;
      entries += 1 + size.entries;
    }
    const size = { characters: characters + entries, entries };
    if (value.type !== "NamespaceValue") this.#sizes.set(value, size);
    return size;
  }
}

function refuseNamespace(): never {
  throw new ChatTemplateError("the chat template failed: a namespace cannot be stored in another value");
}

/** How often an argument can make an operand be repeated: a text's length, or a number itself. */
function magnitude(arg: Value): number {
  const { value } = arg;
  if (typeof value === "string") return value.length;
  if (typeof value === "number") return Math.abs(value);
  if (Array.isArray(value)) return (value as Value[]).reduce((sum, entry) => sum + magnitude(entry), 0);
  return value instanceof Map
    ? [...value.values()].reduce((sum: number, entry: Value) => sum + magnitude(entry), 0)
    : 0;
}

/** Python's `range`, bounded. */
function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(count <= templateLimits.range)) {
    throw new ChatTemplateError(
      `the chat template asks for a range of ${count}, over the limit of ${templateLimits.range}`,
    );
  }
  return Array.from({ length: count }, (_, i) => from + i * step);
}

const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** The parts of C's `strftime` that templates use, in English. */
function strftime(format: string, now: Date): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  const parts: Readonly<Record<string, string>> = {
    "%Y": String(now.getFullYear()),
    "%m": two(now.getMonth() + 1),
    "%d": two(now.getDate()),
    "%B": months[now.getMonth()]!,
    "%b": months[now.getMonth()]!.slice(0, 3),
    "%A": days[now.getDay()]!,
    "%a": days[now.getDay()]!.slice(0, 3),
    "%H": two(now.getHours()),
    "%M": two(now.getMinutes()),
    "%S": two(now.getSeconds()),
    "%%": "%",
  };
  return format.replace(/%./g, (part) => parts[part] ?? part);
}
