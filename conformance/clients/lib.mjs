// One end of the line protocol, for a driver in Node. See "The line protocol" in ../README.md.
// A page has its own: page/lib.mjs, served to it under this file's name.

import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { dispatcher } from './dispatch.mjs';

/**
 * Serves a client library on stdin and stdout until stdin ends.
 * `open(params, emit)` connects one session and resolves to an object with one method per
 * operation, and `details`.
 */
export function serve({ library, open }) {
   const out = process.stdout.write.bind(process.stdout);
   const send = (line) => out(JSON.stringify(line) + '\n');
   // Libraries like to talk; stdout is ours.
   for (const level of ['log', 'info', 'debug', 'warn']) console[level] = console.error;
   process.on('uncaughtException', (error) => {
      console.error(error);
      send({ event: 'crash', message: String(error?.message ?? error) });
   });
   process.on('unhandledRejection', (error) => console.error('unhandled rejection', error));
   const manifest = new URL(`../node_modules/${library}/package.json`, import.meta.url);
   const { version } = JSON.parse(readFileSync(manifest));
   const dispatch = dispatcher({ about: { library, version }, open, send });
   createInterface({ input: process.stdin })
      .on('line', (line) => dispatch(JSON.parse(line)))
      .on('close', () => process.exit(0));
}
