// stompit: STOMP 1.0, 1.1 and 1.2 over TCP. It numbers receipts itself.

import stompit from 'stompit';
import { serve } from './lib.mjs';
import { unpack } from './values.mjs';

function open({ host, port, version, heartbeat, login, passcode, vhost }, emit) {
   const connectHeaders = {
      host: vhost ?? host,
      'accept-version': version,
      'heart-beat': (heartbeat ?? [0, 0]).join(','),
      ...(login && { login, passcode }),
   };
   return new Promise((resolve, reject) => {
      stompit.connect({ host, port, connectHeaders, resetDisconnect: false }, (failure, client) => {
         if (failure) return reject(failure);
         const subscriptions = new Map();
         const transactions = new Map();
         const messages = new Map();
         const waiting = new Set();
         let over = false;
         client.on('error', (error) => {
            // An ERROR frame, of which the library keeps two texts, or the end of the connection.
            if (error.isApplicationError?.()) {
               emit({ event: 'error', headers: { message: error.message }, body: error.longMessage ?? '' });
            }
            for (const fail of waiting) fail(error);
            if (!over) emit({ event: 'closed', reason: error.message });
            over = true;
         });
         client.on('end', () => {
            if (!over) emit({ event: 'closed', reason: 'end' });
            over = true;
         });

         /** Calls `say(options)`; resolves when the receipt has come, if one is wanted. */
         const ask = (wanted, say) => {
            if (!wanted) return void say(undefined);
            return new Promise((resolve, fail) => {
               waiting.add(fail);
               say({ onReceipt: () => { waiting.delete(fail); resolve({}); } });
            });
         };
         const arrived = (key) => (error, frame) => {
            if (error) return;
            const pieces = [];
            frame.on('data', (piece) => pieces.push(piece));
            frame.on('end', () => {
               const handle = messages.size + 1;
               messages.set(handle, frame);
               emit({ event: 'message', key, handle, headers: frame.headers, body: new Uint8Array(Buffer.concat(pieces)) });
            });
         };
         // A queue for answers, which the broker subscribes to for whoever names it in a reply-to.
         const replies = '/temp-queue/replies';
         client.setImplicitSubscription(replies, 'auto', arrived(replies));
         resolve({
            details: client.headers ?? {},

            subscribe({ key, destination, headers, receipt }) {
               // Its own method has no receipt for this.
               const asked = { ...headers, destination, id: key };
               const subscription = client.setImplicitSubscription(key, asked.ack, arrived(key));
               subscriptions.set(key, subscription);
               return ask(receipt, (options) => client.sendFrame('SUBSCRIBE', asked, options).end());
            },
            unsubscribe: ({ key, headers }) => subscriptions.get(key).unsubscribe(headers),
            send({ destination, body, headers, receipt }) {
               const bytes = Buffer.from(unpack(body));
               const all = { ...headers, destination, 'content-length': bytes.length };
               return ask(receipt, (options) => {
                  // It fails with the connection, which is told once.
                  const frame = client.send(all, options).on('error', () => {});
                  frame.end(bytes);
               });
            },
            ack: ({ handle, headers }) => client.ack(messages.get(handle), headers),
            nack: ({ handle, headers }) => client.nack(messages.get(handle), headers),
            begin: ({ transaction }) => void transactions.set(transaction, client.begin({ transaction })),
            commit: ({ transaction }) => transactions.get(transaction).commit(),
            abort: ({ transaction }) => transactions.get(transaction).abort(),
            close: () => new Promise((done) => {
               client.on('close', done);
               client.on('end', done);
               client.disconnect();
            }),
            drop: () => client.getTransportSocket().resetAndDestroy(),
         });
      });
   });
}

serve({ library: 'stompit', open });
