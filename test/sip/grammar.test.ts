import { describe, expect, test } from "vitest";
import { type Framed, parseDatagram, type SipRequest, StreamFramer } from "../../src/sip/grammar.ts";
import { mediaType, responseTo, serialise, withReceived } from "../../src/sip/message.ts";

const head = [
  "MESSAGE sip:bob@b.test SIP/2.0",
  "Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK1",
  "From: <sip:alice@a.test>;tag=1",
  "To: <sip:bob@b.test>",
  "Call-ID: c1",
  "CSeq: 1 MESSAGE",
];

/** A MESSAGE; `change` replaces the lines that begin like it, or is added. */
function message(changes: readonly string[] = [], body = "", without: readonly string[] = []): Buffer {
  const name = (line: string) => line.split(/[: ]/)[0]?.toLowerCase() ?? "";
  const kept = head.filter((line) => !changes.some((one) => name(one) === name(line)) && !without.includes(name(line)));
  const first = changes.find((one) => / SIP\//.test(one) && !/^via/i.test(one));
  const lines = [
    first ?? kept[0] ?? "",
    ...kept.slice(first === undefined ? 1 : 0).filter((one) => !one.includes(" SIP/2.0") || /^via/i.test(one)),
    ...changes.filter((one) => one !== first),
  ];
  const length =
    lines.some((line) => /^(content-length|l)[ \t]*:/i.test(line)) || without.includes("content-length")
      ? []
      : [`Content-Length: ${Buffer.byteLength(body)}`];
  return Buffer.from([...lines, ...length, "", body].join("\r\n"), "latin1");
}

function fed(bytes: Buffer, size = bytes.length): Framed[] {
  const framer = new StreamFramer();
  const framed: Framed[] = [];
  for (let at = 0; at < bytes.length; at += size) framed.push(...framer.push(bytes.subarray(at, at + size)));
  return framed;
}

const kindOf = (framed: Framed | undefined) =>
  framed?.kind === "refused"
    ? `${framed.status} ${framed.reason}`
    : framed?.kind === "message"
      ? "message"
      : framed?.kind;

describe("a stream is cut into messages, whatever its pieces", () => {
  const two = Buffer.concat([
    Buffer.from("\r\n"),
    message([], "hello"),
    Buffer.from("\r\n\r\n"),
    message([], "a\r\n\r\nb"),
    message(),
  ]);
  const whole = fed(two);

  test("whole", () => {
    expect(whole.map(kindOf)).toEqual(["message", "ping", "message", "message"]);
    expect(whole.map((one) => (one.kind === "message" ? one.message.body.toString() : ""))).toEqual([
      "hello",
      "",
      "a\r\n\r\nb",
      "",
    ]);
  });

  test.each([1, 2, 3, 7, 64, 101])("%i octets at a time", (size) => {
    expect(fed(two, size)).toEqual(whole);
  });

  test("cut once, anywhere", () => {
    for (let at = 1; at < two.length; at += 1) {
      const framer = new StreamFramer();
      expect([...framer.push(two.subarray(0, at)), ...framer.push(two.subarray(at))]).toEqual(whole);
    }
  });

  test("what was handed out does not change when the stream's buffer is used again", () => {
    const framer = new StreamFramer();
    const chunk = message([], "hello");
    const [framed] = framer.push(chunk);
    chunk.fill(0x78);
    expect(framed?.kind === "message" && framed.message.body.toString()).toBe("hello");
  });
});

describe("midMessage tells whether somebody owes us bytes", () => {
  test.each<[string, string, boolean]>([
    ["nothing", "", false],
    ["the answer to a ping", "\r\n", false],
    ["half a line end", "\r", false],
    ["three line ends' worth", "\r\n\r\n\r\n", false],
    ["one letter", "M", true],
    ["a header section", "MESSAGE sip:a@b SIP/2.0\r\n", true],
    ["line end and letter", "\r\nM", true],
    ["a body that is missing", "M sip:a@b SIP/2.0\r\nContent-Length: 5\r\n\r\n", true],
    ["a refused body that is still to be passed over", `M sip:a@b SIP/2.0\r\nContent-Length: 100000\r\n\r\n`, true],
  ])("%s", (_name, text, mid) => {
    const framer = new StreamFramer();
    framer.push(Buffer.from(text));
    expect(framer.midMessage).toBe(mid);
  });
});

const bad: [string, Buffer, string][] = [
  [
    "two spaces in the start line (RFC 4475 §3.1.2.9)",
    message(["MESSAGE  sip:bob@b.test SIP/2.0"]),
    "400 Bad start line",
  ],
  ["a space behind the start line (§3.1.2.10)", message(["MESSAGE sip:bob@b.test SIP/2.0 "]), "400 Bad start line"],
  ["SIP/7.0", message(["MESSAGE sip:bob@b.test SIP/7.0"]), "505 Version Not Supported"],
  ["a Request-URI in brackets (§3.1.2.7)", message(["MESSAGE <sip:bob@b.test> SIP/2.0"]), "400 Bad Request-URI"],
  [
    "headers in the Request-URI (§3.1.2.11)",
    message(["MESSAGE sip:bob@b.test?Route=x SIP/2.0"]),
    "400 Headers in the Request-URI",
  ],
  ["a Request-URI of 5 KiB", message([`MESSAGE sip:${"b".repeat(5_000)}@b.test SIP/2.0`]), "414 Request-URI Too Long"],
  ["a Request-URI without scheme", message(["MESSAGE bob SIP/2.0"]), "400 Bad Request-URI"],
  ["no Via", message([], "", ["via"]), "400 Missing via"],
  ["no From", message([], "", ["from"]), "400 Missing from"],
  ["no To", message([], "", ["to"]), "400 Missing to"],
  ["no Call-ID", message([], "", ["call-id"]), "400 Missing call-id"],
  ["no CSeq", message([], "", ["cseq"]), "400 Missing cseq"],
  ["a CSeq over 2^32-1", message(["CSeq: 4294967296 MESSAGE"]), "400 Bad CSeq"],
  ["a CSeq of another method (§3.1.2.17)", message(["CSeq: 1 INVITE"]), "400 CSeq method differs"],
  ["Max-Forwards that is no number", message(["Max-Forwards: x"]), "400 Bad Max-Forwards"],
  ["two To (§3.3.8)", message(["Subject: x", "t: <sip:bob@b.test>"]), "400 Repeated to"],
  ["a bad Via (§3.1.2.1)", message(["Via: SIP/2.0/UDP 192.0.2.15;;,;,,"]), "400 Bad Via"],
  ["an open quote in To (§3.1.2.6)", message(['To: "Bob <sip:bob@b.test>']), "400 Bad to"],
  ["an unquoted comma in From (§3.1.2.15)", message(["From: Bell, Alexander <sip:a@b.test>;tag=43"]), "400 Bad from"],
  ["a line without colon", message(["Foobar roobar"]), "400 Bad header field"],
  ["a header name that is none", message(["Foo@: x"]), "400 Bad header field"],
  ["a NUL", message(["Subject: a\0b"]), "400 Control character"],
  ["a bare LF", message(["Subject: a\nb"]), "400 Control character"],
  ["a bare CR", message(["Subject: a\rb"]), "400 Control character"],
  ["a NUL behind a backslash outside quotes", message(["Subject: a\\\0b"]), "400 Control character"],
  ["bytes that are no UTF-8", message(["Subject: \xff"]), "400 Bad UTF-8"],
  ["a line of 9 KiB", message([`Subject: ${"x".repeat(9_000)}`]), "400 Line too long"],
];

describe("a malformed request is refused with a status, and the stream goes on", () => {
  test.each(bad)("%s", (_name, bytes, expected) => {
    const [first, second, ...more] = fed(Buffer.concat([bytes, message([], "next")]));
    expect(kindOf(first)).toBe(expected);
    expect(first).toMatchObject({ kind: "refused", fatal: false });
    expect(kindOf(second)).toBe("message");
    expect(more).toEqual([]);
    expect(kindOf(parseDatagram(bytes))).toBe(expected);
  });

  test("the refusal has the fields to answer with", () => {
    const [framed] = fed(message(["CSeq: 1 INVITE"]));
    expect(framed?.kind === "refused" && framed.headers.map(({ name }) => name)).toEqual([
      "via",
      "from",
      "to",
      "call-id",
      "cseq",
      "content-length",
    ]);
  });
});

describe("lost framing ends the stream", () => {
  test.each<[string, Buffer, string]>([
    ["no Content-Length", message([], "", ["content-length"]), "400 Content-Length needed"],
    ["two (RFC 4475 §3.3.9)", message(["Content-Length: 0", "l: 0"]), "400 Content-Length needed"],
    ["a negative one (§3.1.2.3)", message(["Content-Length: -999"]), "400 Content-Length needed"],
    ["one that is no number", message(["Content-Length: 0x5"]), "400 Content-Length needed"],
    ["one over 1 MiB", message(["Content-Length: 1048577"]), "413 Request Entity Too Large"],
    [
      "headers over 64 KiB",
      Buffer.from(`MESSAGE sip:a@b SIP/2.0\r\n${"X: y\r\n".repeat(12_000)}`),
      "513 Message Too Large",
    ],
    ["300 lines", message(Array.from({ length: 300 }, (_one, n) => `X-${n}: y`)), "513 Message Too Large"],
    ["an endless line", Buffer.alloc(100_000, 0x78), "513 Message Too Large"],
    ["a line feed before the start line", Buffer.from("\nMESSAGE"), "400 Bad line end"],
    ["a carriage return before the start line", Buffer.from("\rMESSAGE"), "400 Bad line end"],
  ])("%s", (_name, bytes, expected) => {
    const framer = new StreamFramer();
    const framed = framer.push(bytes);
    expect(framed.map(kindOf)).toEqual([expected]);
    expect(framed[0]).toMatchObject({ fatal: true });
    expect(framer.push(message())).toEqual([]);
    expect(framer.midMessage).toBe(false);
    expect(fed(bytes, 1).map(kindOf)).toEqual([expected]);
  });
});

test("a body over 64 KiB is passed over, up to 1 MiB, and the next message is read", () => {
  for (const size of [65_537, 1_048_576]) {
    const bytes = Buffer.concat([message([`Content-Length: ${size}`]), Buffer.alloc(size, 0x41), message([], "next")]);
    for (const piece of [bytes.length, 1_000])
      expect(fed(bytes, piece).map(kindOf)).toEqual(["413 Request Entity Too Large", "message"]);
  }
  const largest = Buffer.concat([message(["Content-Length: 65536"]), Buffer.alloc(65_536, 0x41)]);
  expect(fed(largest, 4_096).map(kindOf)).toEqual(["message"]);
});

test("a body that comes octet by octet costs no more than its octets, however long the headers are", () => {
  const headers = Array.from({ length: 200 }, (_one, n) => `X-${n}: ${"y".repeat(250)}`);
  const bytes = Buffer.concat([message([...headers, "Content-Length: 60000"]), Buffer.alloc(60_000)]);
  const framer = new StreamFramer();
  framer.push(bytes.subarray(0, -60_000));
  const start = performance.now();
  const framed = Array.from(bytes.subarray(-60_000), (octet) => framer.push(Buffer.of(octet))).flat();
  expect(framed.map(kindOf)).toEqual(["message"]);
  expect(performance.now() - start).toBeLessThan(2_000);
});

describe("nothing is ever answered that must not be", () => {
  test.each([
    ["a response with a status over 699 (RFC 4475 §3.1.2.19)", "SIP/2.0 4294967301 better not break the receiver"],
    ["a response of another version", "SIP/7.0 200 OK"],
    ["a malformed ACK", "ACK  sip:a@b.test SIP/2.0"],
  ])("%s has no headers to answer with", (_name, start) => {
    const bytes = message([start]);
    bytes.write(start);
    const text = Buffer.from(bytes.toString("latin1").replace(/^.*?\r\n/, `${start}\r\n`), "latin1");
    for (const framed of [...fed(text), parseDatagram(text)])
      expect(framed).toMatchObject({ kind: "refused", headers: [] });
  });
});

describe("one datagram, one message", () => {
  test.each<[string, Buffer, string, string?]>([
    [
      "without Content-Length: to the end",
      Buffer.concat([message([], "", ["content-length"]), Buffer.from("rest")]),
      "message",
      "rest",
    ],
    [
      "what is behind Content-Length is dropped (RFC 4475 §3.1.1.8)",
      Buffer.concat([message([], "body"), message()]),
      "message",
      "body",
    ],
    ["a Content-Length that is too large (§3.1.2.2)", message(["Content-Length: 9999"], "x"), "400 Bad Content-Length"],
    ["a negative one", message(["Content-Length: -1"]), "400 Bad Content-Length"],
    ["two", message(["Content-Length: 0", "l: 0"]), "400 Repeated content-length"],
    ["no end of the headers", Buffer.from("MESSAGE sip:a@b SIP/2.0\r\n"), "400 No end of header"],
    ["line ends alone", Buffer.from("\r\n\r\n"), "ping"],
    ["nothing", Buffer.alloc(0), "400 No end of header"],
  ])("%s", (_name, bytes, kind, body) => {
    const framed = parseDatagram(bytes);
    expect(kindOf(framed)).toBe(kind);
    if (body !== undefined) expect(framed.kind === "message" && framed.message.body.toString()).toBe(body);
  });
});

describe("header fields", () => {
  const parsed = (lines: readonly string[]) => {
    const [framed] = fed(message(lines));
    if (framed?.kind !== "message") throw new Error(kindOf(framed));
    return Object.fromEntries(framed.message.headers.map(({ name, value }) => [name, value]));
  };

  test("compact forms are written out, names lose their case, values the space around them, folds become one space", () => {
    expect(parsed(["S :  a\r\n \t b\r\n\tc  ", "CONTENT-type:text/plain", "X-Empty:"])).toMatchObject({
      subject: "a b c",
      "content-type": "text/plain",
      "x-empty": "",
    });
  });

  test("a NUL may stand behind a backslash in quotes (RFC 4475 §3.1.1.2)", () => {
    expect(parsed(['To: "a\\\0b" <sip:bob@b.test>'])["to"]).toBe('"a\\\0b" <sip:bob@b.test>');
  });
});

describe("a message is written", () => {
  const request = (() => {
    const [framed] = fed(
      message(["Via: SIP/2.0/UDP h:1;rport;received=9.9.9.9;branch=z9hG4bK1, SIP/2.0/UDP i", "X-Y: z"], "hello"),
    );
    if (framed?.kind !== "message" || framed.message.kind !== "request") throw new Error("no request");
    return framed.message;
  })();

  test("and read again as the same", () => {
    const [again] = fed(serialise(request));
    const names = (one: SipRequest) => one.headers.filter(({ name }) => name !== "content-length");
    expect(again?.kind === "message" && again.message.kind === "request" && names(again.message)).toEqual(
      names(request),
    );
    expect(again).toMatchObject({ message: { method: "MESSAGE", uri: "sip:bob@b.test", body: Buffer.from("hello") } });
  });

  test("Content-Length counts octets", () => {
    expect(serialise({ ...request, body: Buffer.from("héllo ✓") }).toString()).toContain("Content-Length: 10\r\n");
  });

  test("received and rport are where it came from, whatever the sender claims (RFC 3581 §4)", () => {
    const { headers } = withReceived(request, { host: "127.0.0.1", port: 4711 });
    expect(headers.find(({ name }) => name === "via")?.value).toBe(
      "SIP/2.0/UDP h:1;rport=4711;branch=z9hG4bK1;received=127.0.0.1, SIP/2.0/UDP i",
    );
  });

  test.each([
    ["<sip:bob@b.test>", "<sip:bob@b.test>;tag=T"],
    ["<sip:bob@b.test>;tag=x", "<sip:bob@b.test>;tag=x"],
    ["<sip:bob@b.test> ; TAG = x", "<sip:bob@b.test> ; TAG = x"],
    ["<sip:bob@b.test;tag=uri>", "<sip:bob@b.test;tag=uri>;tag=T"],
    ['"a;tag=b" <sip:bob@b.test>', '"a;tag=b" <sip:bob@b.test>;tag=T'],
  ])("the response to To: %s has To: %s (RFC 3261 §8.2.6.2)", (to, answered) => {
    const headers = [...request.headers.filter(({ name }) => name !== "to"), { name: "to", value: to }];
    const response = responseTo({ headers }, 200, "OK", "T");
    expect(response.headers.find(({ name }) => name === "to")?.value).toBe(answered);
    expect(response.headers.map(({ name }) => name).sort()).toEqual(["call-id", "cseq", "from", "to", "via"]);
  });

  test("the media type is without parameters and case", () => {
    expect(mediaType([{ name: "content-type", value: "Text/Plain ; charset=utf-8" }])).toBe("text/plain");
    expect(mediaType([])).toBe("");
  });
});
