import fc from "fast-check";
import * as der from "../../src/pki/der.ts";

/** A DER value as a tree: constructed ones, and OCTET and BIT STRINGs that hold DER, have members. */
interface Tree {
  tag: number;
  /** Before the members: the count of unused bits of a BIT STRING. */
  prefix: Uint8Array;
  content: Uint8Array;
  members: Tree[] | undefined;
}

/** Arbitrary bytes that nearly are one of `seeds`: octets changed, cut and put in, or values replaced with all lengths right. */
export function nearlyDer(seeds: readonly Uint8Array[]): fc.Arbitrary<Buffer> {
  const change = fc.record({
    at: fc.nat(100_000),
    how: fc.constantFrom("drop", "double", "swap", "retag", "empty", "fill", "graft", "wrap"),
    other: fc.nat(100_000),
    tag: fc.integer({ min: 1, max: 254 }),
    bytes: fc.uint8Array({ maxLength: 12 }),
  });
  const seed = fc.constantFrom(...seeds);
  const structured = fc
    .tuple(seed, seed, fc.array(change, { minLength: 1, maxLength: 3 }))
    .map(([one, graft, changes]) => {
      const tree = grow(one);
      for (const { at, how, other, tag, bytes } of changes) {
        const nodes = all(tree);
        const node = nodes[at % nodes.length] ?? tree;
        const siblings = nodes.find((parent) => parent.members?.includes(node))?.members;
        const index = siblings?.indexOf(node) ?? 0;
        if (how === "drop") siblings?.splice(index, 1);
        else if (how === "double") siblings?.splice(index, 0, ...Array.from({ length: 1 + (other % 70) }, () => node));
        else if (how === "swap") siblings?.reverse();
        else if (how === "retag") node.tag = (tag & 0x1f) === 0x1f ? 0x30 : tag;
        else if (how === "empty") Object.assign(node, { members: undefined, content: new Uint8Array() });
        else if (how === "fill") Object.assign(node, { members: undefined, content: bytes });
        else if (how === "wrap") Object.assign(node, { members: [{ ...node }], prefix: new Uint8Array() });
        else {
          const foreign = all(grow(graft));
          Object.assign(node, foreign[other % foreign.length]);
        }
      }
      return write(tree, 40);
    });
  const cut = fc.tuple(fc.nat(4_000), fc.nat(12), fc.uint8Array({ maxLength: 6 }));
  const raw = fc.tuple(seed, fc.array(cut, { minLength: 1, maxLength: 3 })).map(([one, cuts]) => {
    let bytes = Buffer.from(one);
    for (const [at, length, put] of cuts) {
      const start = at % (bytes.length + 1);
      bytes = Buffer.concat([bytes.subarray(0, start), put, bytes.subarray(start + length)]);
    }
    return bytes;
  });
  const flipped = fc.tuple(seed, fc.nat(4_000), fc.integer({ min: 1, max: 255 })).map(([one, at, mask]) => {
    const bytes = Buffer.from(one);
    bytes.writeUInt8(bytes.readUInt8(at % bytes.length) ^ mask, at % bytes.length);
    return bytes;
  });
  const noise = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  return fc.oneof(
    { weight: 5, arbitrary: structured },
    { weight: 2, arbitrary: raw },
    { weight: 2, arbitrary: flipped },
    noise,
  );
}

function grow(bytes: Uint8Array): Tree {
  const { tag, content } = der.readDer(bytes);
  const leaf: Tree = { tag, prefix: new Uint8Array(), content, members: undefined };
  const prefix = tag === der.tag.bitString ? 1 : 0;
  if ((tag & 0x20) === 0 && tag !== der.tag.octetString && tag !== der.tag.bitString) return leaf;
  try {
    const members: Tree[] = [];
    const cursor = new der.DerCursor(content.subarray(prefix));
    while (!cursor.done) members.push(grow(cursor.next().bytes));
    return { ...leaf, prefix: content.subarray(0, prefix), members };
  } catch {
    return leaf; // octets that are no DER
  }
}

function all(tree: Tree): Tree[] {
  return [tree, ...(tree.members ?? []).flatMap(all)];
}

/** A graft may lie within itself: then it ends at `depth`. */
function write({ tag, prefix, content, members }: Tree, depth: number): Buffer {
  if (members === undefined || depth === 0) return der.encode(tag, content);
  return der.encode(tag, prefix, ...members.map((member) => write(member, depth - 1)));
}
