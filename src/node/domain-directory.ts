import type { DirectoryCaller, EnrolDirectory, KeyBackups } from "../irp/directory.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Caller } from "../sixid/server/caller.ts";
import type { DirectoryService } from "../sixid/server/service.ts";

/** The directory as enrolment's messages need it. There is no address book; names and aliases are told by signed objects. */
export function enrolDirectory(service: DirectoryService): EnrolDirectory {
  return {
    async user(caller, key, signal) {
      const { identity, aliases = [] } = await service.lookup(callerOf(caller), key, signal);
      return { id: key, identity, aliases: aliases.map(([, , value]) => value) };
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
      const presence = Object.values(devices).flatMap((device) =>
        device.presence === undefined ? [] : [device.presence],
      );
      return { addresses, presence };
    },
    putAddresses: (caller, jws) => service.putAddresses(callerOf(caller), caller.fingerprint ?? "", jws),
    putPresence: (caller, jws) => service.own.putPresence(callerOf(caller), caller.fingerprint ?? "", jws),
  };
}

/** Backups as enrolment's messages bring and fetch them: by certificate, or with the recovery code. */
export function enrolBackups({ backups }: Pick<DirectoryService, "backups">): KeyBackups {
  return {
    versions: async (caller) => (await backups.list(callerOf(caller))).backups.map(({ version }) => version),
    put: async (caller, bytes) => (await backups.put(callerOf(caller), bytes, undefined)).version,
    get: (caller, version, recovery) =>
      recovery === undefined
        ? backups.get(callerOf(caller), version)
        : backups.recover(caller.identity, recovery, version),
  };
}

function callerOf({ identity, by, fingerprint }: DirectoryCaller): Caller {
  return by === "sca" && fingerprint !== undefined
    ? { kind: "person", identity, by, fingerprint }
    : { kind: "person", identity, by: "upa" };
}
