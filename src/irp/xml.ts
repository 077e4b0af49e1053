import { parseXml, XmlElement, XmlText } from "@rgrove/parse-xml";
import { SuiteError } from "../pki/suite-error.ts";

/** An element with either text or elements in it, never both. */
export interface Element {
  name: string;
  attributes: Readonly<Record<string, string>>;
  text: string;
  children: readonly Element[];
}

const MAX_ELEMENTS = 2_048;

/**
 * Parses one document of the profile. Before the parser looks at it, everything that the profile does not have is
 * refused: DTDs, entities of its own, comments, CDATA, processing instructions, name spaces, and more `<` than any
 * message has (the parser recurses once per level).
 * @throws SuiteError syntax (`bad-xml`)
 */
export function readXml(bytes: Buffer): Element {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw badXml("not UTF-8", cause);
  }
  preScan(text);
  try {
    const { root } = parseXml(text);
    if (root === null) throw badXml("no element");
    return elementOf(root);
  } catch (cause) {
    throw cause instanceof SuiteError ? cause : badXml("not well-formed", cause);
  }
}

/** Attributes in the order given; undefined ones are left out. */
export function writeXml(element: {
  name: string;
  attributes?: Readonly<Record<string, string | number | undefined>>;
  text?: string;
  children?: readonly string[];
}): string {
  const attributes = Object.entries(element.attributes ?? {})
    .filter((one): one is [string, string | number] => one[1] !== undefined)
    .map(([name, value]) => ` ${name}="${escaped(String(value))}"`)
    .join("");
  const inner = escaped(element.text ?? "") + (element.children ?? []).join("");
  return inner === "" ? `<${element.name}${attributes}/>` : `<${element.name}${attributes}>${inner}</${element.name}>`;
}

export function badXml(why: string, cause?: unknown): SuiteError {
  return new SuiteError("syntax", "not a message of this protocol", {
    fault: "peer",
    details: { code: "bad-xml", why },
    ...(cause === undefined ? {} : { cause }),
  });
}

function preScan(text: string): void {
  let opened = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code < 0x20 && code !== 0x0a && code !== 0x09) throw badXml("control character");
    if (code !== 0x3c) continue;
    opened += 1;
    const next = text[at + 1];
    if (next === "!" || next === "?") throw badXml("declaration, comment or instruction");
  }
  if (opened > MAX_ELEMENTS) throw badXml("too many elements");
  if (text.includes("xmlns")) throw badXml("name space");
}

function elementOf(element: XmlElement): Element {
  const children: Element[] = [];
  let text = "";
  for (const child of element.children) {
    if (child instanceof XmlElement) children.push(elementOf(child));
    else if (child instanceof XmlText) text += child.text;
  }
  if (children.length > 0 && text.trim() !== "") throw badXml("text between elements");
  // White space belongs to a text: a password may begin with it.
  return { name: element.name, attributes: element.attributes, text: children.length > 0 ? "" : text, children };
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);
}
