import { OnnxError } from "./errors.ts";
import { operatorOf } from "./opsets.ts";
import type { GraphProto, NodeProto } from "./schema.ts";

/** A node as messages call it: by its name, or by what it produces. */
export function describeNode(node: NodeProto): string {
  const what = operatorOf(node);
  return node.name ? `node "${node.name}" (${what})` : `the ${what} node that produces "${node.output?.[0] ?? ""}"`;
}

/**
 * The nodes of a graph, each behind those whose results it reads; nodes that are in such an order already keep it.
 * @throws OnnxError where a value is produced twice or nowhere, or where nodes form a cycle.
 */
export function sortNodes(graph: GraphProto): NodeProto[] {
  const nodes = graph.node ?? [];
  const given = new Set([...(graph.input ?? []), ...(graph.initializer ?? [])].map((v) => v.name));
  const producer = new Map<string, NodeProto>();
  for (const node of nodes) {
    for (const name of node.output ?? []) {
      if (name === "") continue;
      if (given.has(name))
        throw new OnnxError(`${describeNode(node)} produces "${name}", which is an input or initializer`);
      if (producer.has(name))
        throw new OnnxError(
          `"${name}" is produced twice: by ${describeNode(producer.get(name)!)} and by ${describeNode(node)}`,
        );
      producer.set(name, node);
    }
  }
  const sorted = new Set<NodeProto>();
  const open = new Set<NodeProto>();
  for (const start of nodes) {
    const stack = [start];
    while (stack.length > 0) {
      const node = stack.at(-1)!;
      const before = sorted.has(node) ? [] : missingBefore(node, given, producer, sorted);
      if (before.length === 0) {
        stack.pop();
        open.delete(node);
        sorted.add(node);
        continue;
      }
      open.add(node);
      const again = before.find((n) => open.has(n));
      if (again) throw new OnnxError(`the graph has a cycle through ${describeNode(again)}`);
      stack.push(...before);
    }
  }
  return [...sorted];
}

/** Nodes that `node` reads from and that are not sorted yet. */
function missingBefore(
  node: NodeProto,
  given: ReadonlySet<string | undefined>,
  producer: ReadonlyMap<string, NodeProto>,
  sorted: ReadonlySet<NodeProto>,
): NodeProto[] {
  const missing: NodeProto[] = [];
  for (const name of node.input ?? []) {
    if (name === "" || given.has(name)) continue;
    const source = producer.get(name);
    if (!source) throw new OnnxError(`${describeNode(node)} reads "${name}", which nothing produces`);
    if (!sorted.has(source)) missing.push(source);
  }
  return missing;
}
