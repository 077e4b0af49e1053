/** Runs before any test: a silent fall-back to an older Node would prove nothing about the product. */
export function setup(): void {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < 24 || (major === 24 && minor < 12)) {
    throw new Error(`tests need Node 24.12 or newer, this is ${process.version}: start them with "npm test"`);
  }
}
