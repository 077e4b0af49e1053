import type { DirectoryCaller, EnrolDirectory } from "../irp/directory.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Caller } from "../sixid/server/caller.ts";
import type { DirectoryService } from "../sixid/server/service.ts";

/** The directory as enrolment's messages need it. The address book, aliases and presence wait for the directory to have them. */
export function enrolDirectory(service: DirectoryService): EnrolDirectory {
  return {
    async user(caller, key, signal) {
      const { identity } = await service.lookup(callerOf(caller), key, signal);
      return { id: key, identity, aliases: [] };
    },
    async putUser(caller, { name, aliases, identity }) {
      if (name !== undefined || aliases.length > 0 || identity === undefined)
        throw new SuiteError("forbidden", "this server takes the signed object alone", {
          fault: "peer",
          details: { code: "policy" },
        });
      return service.putIdentity(callerOf(caller), identity);
    },
    async addresses(caller, key, signal) {
      const { devices } = await service.lookup(callerOf(caller), key, signal);
      const addresses = Object.values(devices).flatMap((device) =>
        device.addresses === undefined ? [] : [device.addresses],
      );
      return { addresses, presence: [] };
    },
    putAddresses: (caller, jws) => service.putAddresses(callerOf(caller), caller.fingerprint ?? "", jws),
  };
}

function callerOf({ identity, by, fingerprint }: DirectoryCaller): Caller {
  return by === "sca" && fingerprint !== undefined
    ? { kind: "person", identity, by, fingerprint }
    : { kind: "person", identity, by: "upa" };
}
