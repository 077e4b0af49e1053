import type { Fingerprint } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { OwnIdentity } from "../sixid/announce.ts";
import type { DirectoryClient } from "../sixid/client.ts";
import type { OwnSettings } from "../sixid/own-settings.ts";
import { besideOthers } from "./own-record.ts";

export interface OwnDevicesOptions {
  identity: Identity;
  directory: DirectoryClient;
  settings: OwnSettings;
  /** Fingerprint of this device. */
  signer: () => Fingerprint;
  own: () => OwnIdentity;
}

export interface OwnDevice {
  fingerprint: Fingerprint;
  label: string;
  /** The one that tells this. */
  self: boolean;
  /** Where it can be dialled, `host port`. */
  addresses: readonly string[];
  /** Unix milliseconds; absent: never. */
  seen?: number;
  /** Unix milliseconds. */
  certificateEnds: number;
}

/** Devices that want to take the place of all that the record lists, and came without a word of one of those. */
export interface HeldDevices {
  id: string;
  signer: string;
  /** Unix milliseconds; then they are taken, unless somebody refuses. */
  until: number;
}

/** Of what a device is called enough to tell it from the others. */
const MIN_PREFIX = 8;

/** The devices of the person whose node this is, as the directory has them. */
export class OwnDevices {
  readonly #o: OwnDevicesOptions;

  constructor(options: OwnDevicesOptions) {
    this.#o = options;
  }

  /** @throws SuiteError as a look-up */
  async list(signal: AbortSignal): Promise<{ devices: OwnDevice[]; held: HeldDevices[] }> {
    const { identity, directory, settings, signer } = this.#o;
    const record = await directory.lookup(identity, { fresh: true }, signal);
    const held = await settings.heldRoots(signal);
    return {
      devices: record.devices.map(({ fingerprint, label, addresses, seen, certificate }) => ({
        fingerprint,
        label,
        self: fingerprint === signer(),
        addresses: addresses.map(({ host, port }) => `${host} ${port}`),
        ...(seen === undefined ? {} : { seen: seen.getTime() }),
        certificateEnds: certificate.certificate.validity.notAfter.getTime(),
      })),
      held: held.map(({ id, signer: by, until }) => ({ id, signer: by, until: until * 1000 })),
    };
  }

  /**
   * Revokes a device and takes it out of the record.
   * @param text its fingerprint, or the beginning of it
   * @throws SuiteError not-found; forbidden for this device itself; as a publishing
   */
  async remove(text: string, signal: AbortSignal): Promise<Fingerprint> {
    const { directory, settings, signer, own } = this.#o;
    const fingerprint = the(text, (await this.list(signal)).devices, (one) => one.fingerprint).fingerprint;
    if (fingerprint === signer())
      throw new SuiteError("forbidden", "a device does not remove itself: do it on another one", { fault: "local" });
    await settings.dropDevice(fingerprint, signal);
    const without = [fingerprint];
    await directory.publishIdentity(own(), signal, (current) =>
      besideOthers(own(), { signer: signer(), without }, current),
    );
    return fingerprint;
  }

  /** @param text a held object's id, or the beginning of it @throws SuiteError not-found; conflict when something else came meanwhile */
  async decide(text: string, decision: "approve" | "refuse", signal: AbortSignal): Promise<void> {
    const { settings } = this.#o;
    const { id } = the(text, await settings.heldRoots(signal), (one) => one.id);
    await (decision === "approve" ? settings.approveRoot(id, signal) : settings.refuseRoot(id, signal));
  }
}

/** The one whose name begins so. @throws SuiteError not-found */
function the<T>(text: string, among: readonly T[], nameOf: (one: T) => string): T {
  const start = text.replace(/^sha256:/, "").toLowerCase();
  const [found, ...more] = among.filter((one) => nameOf(one).startsWith(start));
  if (found === undefined || more.length > 0 || start.length < MIN_PREFIX)
    throw new SuiteError("not-found", "the record has no such device; `devices` lists them", {
      fault: "local",
      details: { given: text },
    });
  return found;
}
