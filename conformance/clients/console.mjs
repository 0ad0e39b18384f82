// The console of a real browser, for the snippets of the documentation: headless Chromium shows a page; each line of
// stdin is a JSON string that is typed into its console; what the console shows comes to stdout. A line of U+0004 says
// that the page is there, and that what was typed was run.
//
// Use: console.mjs URL

import { createInterface } from 'node:readline';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const profile = mkdtempSync(join(tmpdir(), 'conformance-console-'));
const context = await chromium.launchPersistentContext(profile, {
   executablePath: '/usr/bin/chromium',
   headless: true,
   args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
});
const page = context.pages()[0] ?? await context.newPage();
page.on('console', (message) => console.log(message.text()));
page.on('pageerror', (error) => console.log(String(error)));
await page.goto(process.argv[2]);
const devtools = await context.newCDPSession(page);
console.log('\u0004');

for await (const line of createInterface({ input: process.stdin })) {
   // As the console does: what is declared stays declared, and may be declared anew.
   const expression = JSON.parse(line);
   const { exceptionDetails } = await devtools.send('Runtime.evaluate', { expression, replMode: true, awaitPromise: true });
   if (exceptionDetails) console.log(exceptionDetails.exception?.description ?? exceptionDetails.text);
   console.log('\u0004');
}
await context.close();
rmSync(profile, { recursive: true, force: true });
