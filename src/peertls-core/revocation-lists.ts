import type { Certificate } from "../pki/certificate.ts";
import type { RevocationList } from "../pki/crl.ts";
import { type RevocationStatus, revocationOf } from "../pki/revocation.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { download, type Room } from "./download.ts";
import { readList } from "./read-list.ts";
import type { Refreshed } from "./refreshed.ts";
import {
  type Above,
  certificateText,
  doesNotCount,
  type Fetching,
  isFetchable,
  KEPT_REFRESH_MS,
  namesList,
  readCertificate,
  type When,
} from "./revocation-fetching.ts";
import { type Source, Sources } from "./sources.ts";
import { Turns } from "./turns.ts";

/** A list's place, and what is known of it. */
interface ListSource extends Source {
  readonly url: string;
  /** Whether the owner named it: then it may be in a private network. */
  readonly configured: boolean;
  /** The CAs of the paths that led here, by SHA-256: a list counts only if one of these signed it. */
  readonly issuers: Map<string, Certificate>;
  /** By kind, see `kindOf`: plain HTTP brings whatever somebody on the way wants, if only a CA has signed it. */
  readonly lists: Map<string, RevocationList>;
  /** When what is on disk of each kind was written, with the use that is told there; a kind that is not there has none. */
  readonly written: Map<string, { list: RevocationList; usedAt: number }>;
  usedAt: number;
}

/** What is kept on disk beside a list. */
export interface KeptList {
  kind: "list";
  anchor: string;
  url: string;
  configured: boolean;
  usedAt: number;
  issuers: string[];
}

export interface ListTold {
  url: string;
  thisUpdate?: Date;
  nextUpdate?: Date;
  entries: number;
  failures: number;
}

const DAY_MS = 86_400_000;
const LIMITS = { maxBytes: 64 * 1024 * 1024, seconds: 60, redirects: 3 };
const MAX_SOURCES = { anchor: 100, total: 1_000 };
/** Memory for the lists of one anchor's CAs, and for all. */
const MAX_ANCHOR_OCTETS = 192 * 1024 * 1024;
const MAX_OCTETS = 512 * 1024 * 1024;
/** What all that is being fetched may take. */
const MAX_FETCHED_OCTETS = 256 * 1024 * 1024;
const MAX_KINDS = 8;
const MAX_ISSUERS = 64;
/** A list that no peer's certificate needed for so long is let go. */
const UNUSED_MS = 30 * DAY_MS;

/** Revocation lists by the URLs that certificates of good paths name. */
export class RevocationLists {
  readonly #o: Fetching;
  readonly #sources = new Sources<ListSource>(MAX_SOURCES, (source) => void this.#removeFiles(source));
  readonly #room: Room = { octets: MAX_FETCHED_OCTETS };
  /** One list of an anchor at a time: who names many slow places waits for them alone. */
  readonly #turns = new Turns(1);

  constructor(options: Fetching) {
    this.#o = options;
  }

  get told(): readonly ListTold[] {
    return [...this.#sources].flatMap(({ url, lists, refreshed: { failures } }) =>
      (lists.size === 0 ? [undefined] : [...lists.values()]).map((list) => ({
        url,
        failures,
        entries: list?.size ?? 0,
        ...(list === undefined ? {} : { thisUpdate: list.thisUpdate }),
        ...(list?.nextUpdate === undefined ? {} : { nextUpdate: list.nextUpdate }),
      })),
    );
  }

  get refreshed(): readonly Refreshed[] {
    return [...this.#sources].map(({ refreshed }) => refreshed);
  }

  /**
   * What the lists say that the certificate names, or, if it names none, those that the owner configured for the anchor. A
   * URL that is new is fetched at once. Undefined: nothing has come yet.
   */
  statusOf(certificate: Certificate, above: Above, when: When): RevocationStatus | undefined {
    const { issuer, anchor, path } = above;
    const own = namesList(certificate);
    const lists = (own ? certificate.crlUrls : when.configured).flatMap((url) => this.#at(url, !own, above));
    const { time, graceMs } = when;
    if (lists.length === 0) return undefined;
    return revocationOf(certificate, issuer, anchor, { lists, signers: path, time, graceMs });
  }

  #at(url: string, configured: boolean, { path, anchor }: Above): RevocationList[] {
    const source = this.#sources.get(anchor.name, keyOf(url, configured)) ?? this.#add(url, configured, anchor.name);
    if (source === undefined) return [];
    source.usedAt = this.#o.clock().getTime();
    const before = source.issuers.size;
    for (const issuer of path.slice(1)) {
      if (source.issuers.size >= MAX_ISSUERS) break;
      source.issuers.set(issuer.sha256, issuer);
    }
    // What nobody vouched for yet may count now.
    if (source.issuers.size > before && source.lists.size === 0) void source.refreshed.anew();
    return [...source.lists.values()];
  }

  /** Undefined for what is not fetched. */
  #add(url: string, configured: boolean, anchor: string): ListSource | undefined {
    if (!isFetchable(url)) return undefined;
    const source: ListSource = {
      anchor,
      url,
      configured,
      issuers: new Map(),
      lists: new Map(),
      written: new Map(),
      usedAt: this.#o.clock().getTime(),
      refreshed: this.#o.refreshed(url, () => this.#turns.run(anchor, () => this.#fetch(source))),
    };
    return this.#sources.add(keyOf(url, configured), source) ? source : undefined;
  }

  async #fetch(source: ListSource): Promise<Date | undefined | "over"> {
    const { anchor, url, configured, issuers, lists } = source;
    const { clock, signal } = this.#o;
    if (!this.#isKept(source)) return "over"; // another URL took its room while it waited for its turn
    if (clock().getTime() - source.usedAt > UNUSED_MS) {
      this.#sources.delete(anchor, keyOf(url, configured));
      await this.#removeFiles(source);
      return "over";
    }
    const privateTargets = configured || this.#o.privateTargets;
    const bytes = await download(url, { ...LIMITS, privateTargets, room: this.#room }, signal);
    const list = await readList(bytes, [...issuers.values()]);
    if (!this.#isKept(source)) return "over";
    const kind = this.#checked(source, list);
    if (Buffer.compare(lists.get(kind)?.der ?? new Uint8Array(), list.der) !== 0) {
      lists.set(kind, list); // before it is written: who is revoked is so on a full disk, too
      this.#o.changed();
    }
    await this.#write(source, kind);
    return list.nextUpdate;
  }

  #isKept(source: ListSource): boolean {
    return this.#sources.has(keyOf(source.url, source.configured), source);
  }

  /** Unless it is on disk already. That it is still in use is told there each day, for the next run. */
  async #write(source: ListSource, kind: string): Promise<void> {
    const { files } = this.#o;
    const { usedAt } = source;
    const list = source.lists.get(kind);
    const written = source.written.get(kind);
    if (list === undefined) return;
    if (written?.list !== list) await files.write(fileOf(source, kind), list.der, kept(source));
    else if (usedAt - written.usedAt > DAY_MS) await files.describe(fileOf(source, kind), kept(source));
    else return;
    source.written.set(kind, { list, usedAt });
    if (!this.#isKept(source) || source.lists.get(kind) === undefined) await this.#removeFile(source, kind);
  }

  /** What an earlier run kept is checked as if it came now. */
  async takeKept(bytes: Buffer, about: KeptList): Promise<void> {
    const { anchor, url, configured } = about;
    const source = this.#sources.get(anchor, keyOf(url, configured)) ?? this.#add(url, configured, anchor);
    if (source === undefined) return;
    // What is on disk tells of an earlier run: in this one it has a day to be used.
    source.usedAt = Math.max(about.usedAt, this.#o.clock().getTime() - UNUSED_MS + DAY_MS);
    for (const one of about.issuers.map(readCertificate)) source.issuers.set(one.sha256, one);
    source.refreshed.later(this.#o.chance() * KEPT_REFRESH_MS);
    const list = await readList(bytes, [...source.issuers.values()]);
    const kind = this.#checked(source, list);
    source.lists.set(kind, list);
    source.written.set(kind, { list, usedAt: about.usedAt });
  }

  /**
   * @returns its kind
   * @throws SuiteError certificate-invalid for a list by somebody else, or older than the one of its kind that is kept; limit-exceeded
   */
  #checked(source: ListSource, list: RevocationList): string {
    const { lists, issuers } = source;
    if (list.criticalUnknown.length > 0) throw doesNotCount("critical extension");
    const signer = [...issuers.values()].find((issuer) => list.signedBy(issuer));
    if (signer === undefined) throw doesNotCount("signature");
    const kind = kindOf(list, signer);
    const last = lists.get(kind);
    if (last !== undefined && list.thisUpdate < last.thisUpdate) throw doesNotCount("older than the last");
    const more = list.weight - (last?.weight ?? 0);
    const [ofAnchor, ofAll] = [weightOf(this.#sources.of(source.anchor)), weightOf(this.#sources)];
    if (ofAnchor + more > MAX_ANCHOR_OCTETS || ofAll + more > MAX_OCTETS)
      throw new SuiteError("limit-exceeded", "there is no room for another revocation list", {
        fault: "service",
        details: { anchor: source.anchor, octets: list.weight },
      });
    if (last !== undefined || lists.size < MAX_KINDS) return kind;
    const now = this.#o.clock();
    const [ended] = [...lists].find(([, { nextUpdate = now }]) => nextUpdate <= now) ?? [];
    if (ended === undefined) throw doesNotCount("too many kinds of lists");
    lists.delete(ended);
    void this.#removeFile(source, ended);
    return kind;
  }

  async #removeFiles(source: ListSource): Promise<void> {
    for (const kind of source.lists.keys()) await this.#removeFile(source, kind);
  }

  async #removeFile(source: ListSource, kind: string): Promise<void> {
    source.written.delete(kind);
    await this.#o.files.remove(fileOf(source, kind)).catch(() => undefined);
  }
}

/**
 * What a list tells of: it takes the place of an earlier one of the same kind only. Else whoever can change what comes
 * over HTTP would bring the CA's list of other certificates, or of what is new, and nobody would be revoked any more; or
 * that of another CA of the same name.
 */
function kindOf({ issuer, deltaBase, scope }: RevocationList, signer: Certificate): string {
  return JSON.stringify([issuer.key, signer.fingerprint, deltaBase !== undefined, scope]);
}

function keyOf(url: string, configured: boolean): string {
  return `${configured ? "configured " : ""}${url}`;
}

function fileOf({ anchor, url, configured }: ListSource, kind: string): string {
  return JSON.stringify([anchor, keyOf(url, configured), kind]);
}

function kept({ anchor, url, configured, usedAt, issuers }: ListSource): KeptList {
  return { kind: "list", anchor, url, configured, usedAt, issuers: [...issuers.values()].map(certificateText) };
}

function weightOf(sources: Iterable<ListSource>): number {
  let octets = 0;
  for (const { lists } of sources) for (const list of lists.values()) octets += list.weight;
  return octets;
}
