// Reads an AsyncAPI document with the parser of AsyncAPI, and prints what is wrong with it.
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

// Few tools read AsyncAPI 3.1, and the document needs nothing of it.
const ignored = ['asyncapi-latest-version'];

const { diagnostics } = await new Parser().parse(await readFile(process.argv[2], 'utf8'));
const found = diagnostics.filter((d) => !ignored.includes(d.code));
for (const d of found) {
  console.error(`${d.path.join('.')}: ${d.code}: ${d.message}`);
}
process.exitCode = found.length === 0 ? 0 : 1;
