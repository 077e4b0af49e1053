import { noteDownload, putBackup } from "./backups.ts";
import { putRequest, removeRequest } from "./boxes.ts";
import type { Operation } from "./operation.ts";
import { dropDevice, putAddresses, putIdentity, putPresence } from "./parts.ts";
import {
  addInvitation,
  addSession,
  addUser,
  removeSession,
  removeSessionsOf,
  setFailures,
  setPassword,
  setUser,
  useInvitation,
} from "./people.ts";
import { grantAlias, putAliases, putRoot, removeRoot, setContacts, setVisibility } from "./rights.ts";

/** Every operation that writes, by name: so it is told to the thread that writes. */
export const WRITES = {
  ...{ addUser, setUser, setPassword, setFailures },
  ...{ addInvitation, useInvitation, addSession, removeSession, removeSessionsOf },
  ...{ putIdentity, putAddresses, putPresence, dropDevice },
  ...{ putAliases, grantAlias, setVisibility, setContacts, putRoot, removeRoot },
  ...{ putRequest, removeRequest, putBackup, noteDownload },
};

export type WriteName = keyof typeof WRITES;
export type WriteArguments<K extends WriteName> = Parameters<(typeof WRITES)[K]>;
export type WriteResult<K extends WriteName> = ReturnType<(typeof WRITES)[K]> extends Operation<infer T> ? T : never;
