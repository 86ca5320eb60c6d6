// Node.js 18 has what the client looks for under another name.
import {webcrypto} from "node:crypto";

globalThis.crypto ??= webcrypto;
