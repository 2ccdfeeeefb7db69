import { ArgumentError } from "./errors.ts";

/**
 * Trees: nested records and arrays with leaves of one kind (tensors, mostly). A class instance takes part
 * by naming its children under `children` and rebuilding itself from them under `rebuild`.
 */
export const children: unique symbol = Symbol("pare.tree.children");
export const rebuild: unique symbol = Symbol("pare.tree.rebuild");

/** A class that is an inner node of trees. */
export interface TreeNode {
  [children](): Record<string, unknown>;
  [rebuild](fields: Record<string, unknown>): unknown;
}

function isTreeNode(value: object): value is TreeNode {
  return children in value;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === Object.prototype || prototype === null;
}

/** Whether a value is a leaf of the kind that a tree operation works on. */
export type LeafTest<L> = (value: unknown) => value is L;

/**
 * The same tree with each leaf replaced by `change(leaf, path)`; `path` joins keys and indices with dots.
 * Values that are neither leaves nor containers (numbers, strings, undefined) are kept as they are.
 */
export function mapTree<L>(
  tree: unknown,
  isLeaf: LeafTest<L>,
  change: (leaf: L, path: string) => unknown,
  path = "",
): unknown {
  if (isLeaf(tree)) return change(tree, path);
  if (tree === null || typeof tree !== "object") return tree;
  const below = (key: string | number): string => (path === "" ? `${key}` : `${path}.${key}`);
  if (Array.isArray(tree)) return tree.map((item, i) => mapTree(item, isLeaf, change, below(i)));
  const mapFields = (fields: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(fields).map(([key, item]) => [key, mapTree(item, isLeaf, change, below(key))]));
  if (isTreeNode(tree)) return tree[rebuild](mapFields(tree[children]()));
  if (!isPlain(tree)) {
    throw new ArgumentError(
      `${path || "the tree"} is a ${tree.constructor.name}, which is neither a tensor, a record, an array nor a tree node`,
    );
  }
  return mapFields(tree as Record<string, unknown>);
}

/** Leaves in order, each with its path. */
export function leavesOf<L>(tree: unknown, isLeaf: LeafTest<L>): { path: string; leaf: L }[] {
  const found: { path: string; leaf: L }[] = [];
  mapTree(tree, isLeaf, (leaf, path) => {
    found.push({ path, leaf });
    return leaf;
  });
  return found;
}

/** Leaves as a flat record keyed by path. @throws ArgumentError when two leaves share a path. */
export function flattenTree<L>(tree: unknown, isLeaf: LeafTest<L>): Record<string, L> {
  const flat: Record<string, L> = {};
  for (const { path, leaf } of leavesOf(tree, isLeaf)) {
    if (Object.hasOwn(flat, path)) throw new ArgumentError(`two leaves of the tree share the path "${path}"`);
    flat[path] = leaf;
  }
  return flat;
}
