// From a request of the runner to a method of a session, and back. Runs in Node and in a page.

import { pack } from './values.mjs';

/** What a broker refused: its WAMP error URI and arguments travel to the runner. */
export class Refused extends Error {
   constructor(uri, args = [], kwargs = {}) {
      super(uri);
      Object.assign(this, { uri, args, kwargs });
   }
}

export function dispatcher({ about, open, send }) {
   const sessions = new Map();
   return async ({ id, session, op, ...params }) => {
      try {
         let ok = null;
         if (op === 'about') {
            ok = about;
         } else if (op === 'connect') {
            const emit = (event) => send({ session, ...pack(event) });
            const opened = await open(params, emit);
            sessions.set(session, opened);
            ok = opened.details ?? {};
         } else {
            const target = sessions.get(session);
            if (!target) throw new Error(`no session ${session}`);
            if (typeof target[op] !== 'function') throw new Error(`this client has no ${op}`);
            ok = await target[op](params);
         }
         send({ id, ok: pack(ok) });
      } catch (error) {
         const { uri, args, kwargs } = error ?? {};
         send({ id, error: pack({ message: String(error?.message ?? error), uri, args, kwargs }) });
      }
   };
}
