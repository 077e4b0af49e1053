import type { Identity } from "../../pki/identity.ts";
import { backup, backups } from "./backups.ts";
import { requestsOf } from "./boxes.ts";
import type { Operation } from "./operation.ts";
import { aliases, chain, find, record, revokedDevices } from "./parts.ts";
import { invitation, session, user, userById, users } from "./people.ts";
import { contacts, roots, rootsUntil, visibility } from "./rights.ts";
import type { Change, DirectoryStore, LookupKey, UserFilter } from "./store.ts";
import type { WriteArguments, WriteName, WriteResult } from "./writes.ts";

/** What carries operations out. */
export interface Database {
  /** @throws SuiteError store-failed */
  read<T>(operation: Operation<T>): Promise<T>;
  /** Resolves after the commit, and after the listeners were told. @throws SuiteError store-failed */
  write<K extends WriteName>(name: K, ...values: WriteArguments<K>): Promise<WriteResult<K>>;
  changes(listener: (change: Change) => void): () => void;
  close(): Promise<void>;
}

/** The store, whatever database is below it. */
export function storeOver(database: Database): DirectoryStore {
  const read = <T>(operation: Operation<T>) => database.read(operation);
  const write =
    <K extends WriteName>(name: K) =>
    (...values: WriteArguments<K>) =>
      database.write(name, ...values);
  return {
    user: (identity) => read(user(identity)),
    userById: (uuid) => read(userById(uuid)),
    users: (filter?: UserFilter) => read(users(filter)),
    addUser: write("addUser"),
    setUser: write("setUser"),
    setPassword: write("setPassword"),
    setFailures: write("setFailures"),
    addInvitation: write("addInvitation"),
    invitation: (hash) => read(invitation(hash)),
    useInvitation: write("useInvitation"),
    addSession: write("addSession"),
    session: (hash) => read(session(hash)),
    removeSession: write("removeSession"),
    removeSessionsOf: write("removeSessionsOf"),
    find: (key: LookupKey, asker?: Identity) => read(find(key, asker)),
    record: (uuid) => read(record(uuid)),
    chain: (uuid, from, limit) => read(chain(uuid, from, limit)),
    putIdentity: write("putIdentity"),
    putAddresses: write("putAddresses"),
    putPresence: write("putPresence"),
    dropDevice: write("dropDevice"),
    revokedDevices: (uuid) => read(revokedDevices(uuid)),
    putAliases: write("putAliases"),
    aliases: (uuid) => read(aliases(uuid)),
    grantAlias: write("grantAlias"),
    visibility: (uuid) => read(visibility(uuid)),
    setVisibility: write("setVisibility"),
    contacts: (uuid) => read(contacts(uuid)),
    setContacts: write("setContacts"),
    putRoot: write("putRoot"),
    roots: (uuid) => read(roots(uuid)),
    rootsUntil: (received) => read(rootsUntil(received)),
    removeRoot: write("removeRoot"),
    putRequest: write("putRequest"),
    requestsOf: (owner, now) => read(requestsOf(owner, now)),
    removeRequest: write("removeRequest"),
    putBackup: write("putBackup"),
    backups: (uuid) => read(backups(uuid)),
    backup: (uuid, version) => read(backup(uuid, version)),
    noteDownload: write("noteDownload"),
    changes: (listener) => database.changes(listener),
    close: () => database.close(),
  };
}
