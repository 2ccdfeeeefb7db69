import type { AttrKind, Attrs, AttrValue } from "../tensor/index.ts";
import { OnnxError } from "./errors.ts";
import { readTensor } from "./read-tensor.ts";
import { type AttributeProto, attributeType, type NodeProto } from "./schema.ts";

/** The fields that can hold an attribute's value, with the kind of attribute that each makes. */
const valueFields = {
  f: "float",
  i: "int",
  s: "string",
  t: "tensor",
  g: "graph",
  floats: "floats",
  ints: "ints",
  strings: "strings",
  tensors: "tensors",
  graphs: "graphs",
  sparseTensor: "sparseTensor",
  sparseTensors: "sparseTensors",
  typeProto: "typeProto",
  typeProtos: "typeProtos",
} as const satisfies Partial<Record<keyof AttributeProto, keyof typeof attributeType>>;

type ValueField = keyof typeof valueFields;
export type AttributeKind = keyof typeof attributeType;

const kindByNumber: ReadonlyMap<number, AttributeKind> = new Map(
  Object.entries(attributeType).map(([kind, number]) => [number, kind as AttributeKind]),
);

/**
 * The kind of an attribute, which its type field and its value must agree on.
 * @throws OnnxError where they do not, or where the value is that of a function's parameter.
 */
export function attributeKind(attribute: AttributeProto, what: string): AttributeKind {
  if (attribute.refAttrName) throw new OnnxError(`${what} refers to a function's attribute outside of a function`);
  const present = (Object.keys(valueFields) as ValueField[]).filter((field) => attribute[field] !== undefined);
  if (present.length > 1) throw new OnnxError(`${what} has several values: ${present.join(", ")}`);
  const held = present[0] && valueFields[present[0]];
  // Files of the first IR version have no type field; writers may leave out a value of zero.
  const declared = attribute.type ? kindByNumber.get(attribute.type) : held;
  if (!declared)
    throw new OnnxError(attribute.type ? `${what} has the unknown type ${attribute.type}` : `${what} has no value`);
  if (held && held !== declared) throw new OnnxError(`${what} is declared as ${declared} but holds ${held}`);
  return declared;
}

/**
 * The attributes of a node as the table of operations takes them.
 * @param kinds the attributes that the operator has.
 * @throws OnnxError for an attribute that it does not have, of another kind, or given twice.
 */
export function readAttributes(
  node: NodeProto,
  kinds: Readonly<Record<string, AttrKind>>,
  where: string,
  limit: number,
): Attrs {
  const attrs: Record<string, AttrValue> = {};
  for (const attribute of node.attribute ?? []) {
    const name = attribute.name ?? "";
    const what = `the attribute "${name}" of ${where}`;
    const kind = attributeKind(attribute, what);
    const wanted = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    if (!wanted)
      throw new OnnxError(
        `${what} is unknown; the operator has ${Object.keys(kinds).sort().join(", ") || "no attributes"}`,
      );
    if (kind !== wanted) throw new OnnxError(`${what} must be of kind ${wanted}, not ${kind}`);
    if (Object.hasOwn(attrs, name)) throw new OnnxError(`${what} is given twice`);
    attrs[name] = valueOf(attribute, wanted, what, limit);
  }
  return attrs;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function valueOf(attribute: AttributeProto, kind: AttrKind, what: string, limit: number): AttrValue {
  const text = (bytes: Uint8Array): string => {
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      throw new OnnxError(`${what} is not UTF-8 text`, { cause });
    }
  };
  switch (kind) {
    case "float":
      return attribute.f ?? 0;
    case "int":
      return exact(attribute.i ?? 0);
    case "string":
      return attribute.s ? text(attribute.s) : "";
    case "floats":
      return attribute.floats ?? [];
    case "ints":
      return (attribute.ints ?? []).map(exact);
    case "strings":
      return (attribute.strings ?? []).map(text);
    case "tensor":
      return readTensor(attribute.t ?? {}, { what, limit });
  }
}

/** The ends of the 64-bit range stand for "to the end"; the nearest exact number says the same. */
const exact = (n: number): number => Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, n));
