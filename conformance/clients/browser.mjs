// A real browser: headless Chromium with a page, in it AutobahnJS, Wampy and stompjs side by side,
// each in the browser build its users load. The page runs the very drivers that Node runs; this program
// serves it, and carries the line protocol between stdin, stdout and the page. There is a second such page
// that has no WebSocket: for the sessions that connect with `denied`.
//
// Use: browser.mjs PORT   (the page's port; the broker must allow the origin http://127.0.0.1:PORT)

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const here = (path) => new URL(path, import.meta.url);
const library = (path) => here(`../node_modules/${path}`);

// What the page may load, and from where. `lib.mjs` is its own; the other modules are Node's.
const files = {
   '/': here('page/index.html'),
   '/clients/lib.mjs': here('page/lib.mjs'),
   ...Object.fromEntries(['autobahn', 'wampy', 'stompjs', 'dispatch', 'values', 'receipts']
      .map((name) => [`/clients/${name}.mjs`, here(`${name}.mjs`)])),
   ...Object.fromEntries(['autobahn', 'wampy', 'stompjs', 'sockjs', 'ws']
      .map((name) => [`/modules/${name}.mjs`, here(`page/modules/${name}.mjs`)])),
   '/libraries/autobahn.js': library('autobahn-browser/autobahn.min.js'),
   '/libraries/wampy.js': library('wampy/dist/browser/wampy.min.js'),
   '/libraries/wampy-all.js': library('wampy/dist/browser/wampy-all.min.js'),
   '/libraries/stompjs.js': library('@stomp/stompjs/bundles/stomp.umd.min.js'),
   '/libraries/sockjs.js': library('sockjs-client/dist/sockjs.min.js'),
};
const types = { html: 'text/html; charset=utf-8', js: 'text/javascript', mjs: 'text/javascript' };

const version = (name) => JSON.parse(readFileSync(library(`${name}/package.json`))).version;
const about = {
   library: 'chromium',
   versions: {
      autobahn: version('autobahn-browser'), wampy: version('wampy'), '@stomp/stompjs': version('@stomp/stompjs'),
      'sockjs-client': version('sockjs-client'),
   },
};

const port = Number(process.argv[2]);
const send = (line) => process.stdout.write(JSON.stringify(line) + '\n');

const server = createServer((request, response) => {
   const file = files[request.url];
   if (!file) return response.writeHead(404).end();
   response.writeHead(200, { 'content-type': types[file.pathname.split('.').at(-1)] }).end(readFileSync(file));
});
await new Promise((listening) => server.listen(port, '127.0.0.1', listening));

const profile = mkdtempSync(join(tmpdir(), 'conformance-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
   executablePath: '/usr/bin/chromium',
   headless: true,
   args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
});
await context.exposeFunction('toRunner', (line) => void process.stdout.write(line + '\n'));

async function open(page) {
   page.on('console', (message) => console.error(`page: ${message.text()}`));
   page.on('pageerror', (error) => {
      console.error('page:', error);
      send({ event: 'crash', message: String(error) });
   });
   await page.goto(`http://127.0.0.1:${port}/`);
   await page.waitForFunction(() => globalThis.ready === true, null, { timeout: 20_000 });
   return page;
}

const page = await open(context.pages()[0] ?? await context.newPage());
const withoutWebSocket = await context.newPage();
await withoutWebSocket.addInitScript(() => { delete globalThis.WebSocket; });
const denied = await open(withoutWebSocket);
// Whose sessions are in the page that has none.
const deniedSessions = new Set();
about.chromium = context.browser()?.version();

const commands = {
   about: async () => about,
   screenshot: async ({ path }) => {
      await page.screenshot({ path, fullPage: true });
      return { path };
   },
};

createInterface({ input: process.stdin })
   .on('line', async (line) => {
      const { id, op, ...params } = JSON.parse(line);
      if (!commands[op]) {
         if (op === 'connect' && params.denied) deniedSessions.add(params.session);
         const where = deniedSessions.has(params.session) ? denied : page;
         await where.evaluate((request) => globalThis.fromRunner(request), line).catch((error) =>
            send({ id, error: { message: String(error) } }));
         return;
      }
      await commands[op](params).then((ok) => send({ id, ok }), (error) => send({ id, error: { message: String(error) } }));
   })
   .on('close', async () => {
      await context.close();
      server.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
      process.exit(0);
   });
