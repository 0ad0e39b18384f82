// One end of the line protocol, for the drivers in a page: `serve` as in ../lib.mjs, but for several
// libraries at once, over two functions that browser.mjs shares with the page. Counts what it sees.

import { dispatcher } from './dispatch.mjs';

const counts = new Map();
const dispatchers = new Map();
const librariesOfSessions = new Map();
const last = [];

export function serve({ library, open }) {
   counts.set(library, { sessions: 0, operations: 0, refused: 0, messages: 0 });
   const send = (line) => {
      const seen = counts.get(library);
      if (line.event === 'message') seen.messages++;
      if (line.error) seen.refused++;
      show(library, line);
      globalThis.toRunner(JSON.stringify(line));
   };
   dispatchers.set(library, dispatcher({ about: { library }, open, send }));
}

globalThis.fromRunner = (text) => {
   const request = JSON.parse(text);
   if (request.op === 'connect') librariesOfSessions.set(request.session, request.library);
   const library = librariesOfSessions.get(request.session);
   const seen = counts.get(library);
   seen.operations++;
   if (request.op === 'connect') seen.sessions++;
   show(library, request);
   dispatchers.get(library)(request);
};

let drawing = false;

function show(library, line) {
   last.push(`${library.padEnd(15)} ${line.op ? '→' : '←'} ${JSON.stringify(line).slice(0, 150)}`);
   if (last.length > 30) last.shift();
   if (drawing) return;
   drawing = true;
   setTimeout(() => {
      drawing = false;
      const rows = [...counts].map(([name, seen]) => {
         const row = document.createElement('tr');
         for (const cell of [name, ...Object.values(seen)]) {
            const data = row.insertCell();
            data.textContent = cell;
            if (typeof cell === 'number') data.className = 'n';
         }
         return row;
      });
      document.getElementById('counts').replaceChildren(...rows);
      document.getElementById('last').textContent = last.join('\n');
   }, 100);
}
