import { parentPort, workerData } from "node:worker_threads";
import { derivePkcs12Here, type Pkcs12Derivation } from "./pkcs12-kdf.ts";

/** Derives one key, and ends. */
parentPort?.postMessage(derivePkcs12Here(workerData as Pkcs12Derivation));
