import { OnnxError } from "./errors.ts";
import type { ModelProto, NodeProto } from "./schema.ts";

/** The standard domain has two names. */
export const domainOf = ({ domain = "" }: { domain?: string }): string => (domain === "ai.onnx" ? "" : domain);

/** Name of a node's operator as the table of operations has it: `Conv`, `com.microsoft.FusedMatMul`. */
export function operatorOf(node: NodeProto): string {
  const domain = domainOf(node);
  return domain === "" ? (node.opType ?? "") : `${domain}.${node.opType}`;
}

/** Operator set by domain. @throws OnnxError where none is declared, or one twice. */
export function opsetsOf({ irVersion, opsetImport }: ModelProto): Map<string, number> {
  const opsets = new Map<string, number>();
  for (const entry of opsetImport ?? []) {
    const domain = domainOf(entry);
    if (opsets.has(domain)) throw new OnnxError(`the operator set of the domain "${domain}" is declared twice`);
    if (!entry.version || entry.version < 0)
      throw new OnnxError(`the operator set of the domain "${domain}" has no version`);
    opsets.set(domain, entry.version);
  }
  if (opsets.size === 0) {
    if (irVersion! >= 3) throw new OnnxError("the model does not say its operator set");
    opsets.set("", 1);
  }
  return opsets;
}
