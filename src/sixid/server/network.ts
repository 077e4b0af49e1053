/** What is counted as one place: an IPv4 address, or an IPv6 /64, of which who has one address has 2^64. */
export function network(host = ""): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host)?.[1]; // RFC 4291 §2.5.5.2
  if (mapped !== undefined) return mapped;
  if (!host.includes(":")) return host;
  const [head = "", tail] = host.toLowerCase().split("::");
  const groups = head === "" ? [] : head.split(":");
  const behind = tail === undefined || tail === "" ? [] : tail.split(":");
  while (groups.length + behind.length < 8) groups.push("0");
  return [...groups, ...behind].slice(0, 4).join(":");
}
