import * as jinja from "@huggingface/jinja";

/**
 * What is used of `@huggingface/jinja`, typed here because the package's own declarations import one another in a way
 * that Node's rules for modules do not resolve.
 */

/** A node of a parsed template. */
export interface Node {
  readonly type: string;
}

export interface StringValue {
  readonly type: "StringValue";
  readonly value: string;
  /** The methods of this string, by name. */
  readonly builtins: ReadonlyMap<string, Value>;
}

export interface FunctionValue {
  readonly type: "FunctionValue";
  value: (args: readonly Value[], scope: Environment) => Value;
}

export interface ListValue {
  readonly type: "ArrayValue" | "TupleValue";
  readonly value: readonly Value[];
}

export interface MappingValue {
  readonly type: "ObjectValue" | "KeywordArgumentsValue" | "NamespaceValue";
  readonly value: ReadonlyMap<string, Value>;
}

export interface ScalarValue {
  readonly type: "IntegerValue" | "FloatValue" | "BooleanValue" | "NullValue" | "UndefinedValue";
  readonly value: number | boolean | null | undefined;
}

/** A value of a running template. */
export type Value = StringValue | FunctionValue | ListValue | MappingValue | ScalarValue;

export interface Environment {
  /** Declares a variable, converting a JavaScript value. */
  set(name: string, value: unknown): Value;
}

export interface Interpreter {
  evaluate(node: Node | undefined, environment: Environment): Value;
}

export const { Environment, Interpreter, tokenize, parse } = jinja as unknown as {
  readonly Environment: new () => Environment;
  readonly Interpreter: new (environment: Environment) => Interpreter;
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): Node;
};
