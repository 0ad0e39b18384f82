// stompit: STOMP 1.0, 1.1 and 1.2 over TCP.

import stompit from 'stompit';
import { serve } from './lib.mjs';
import { Receipts } from './receipts.mjs';
import { unpack } from './values.mjs';

function open({ host, port, version, vhost, heartbeat, login, passcode }, emit) {
   const receipts = new Receipts();
   const messages = new Map();
   const subscriptions = new Map();
   const transactions = new Map();
   const connectHeaders = {
      'accept-version': version,
      host: vhost ?? host,
      'heart-beat': (heartbeat ?? [0, 0]).join(','),
      ...(login && { login, passcode }),
   };

   return new Promise((resolve, reject) => {
      stompit.connect({ host, port, connectHeaders }, (error, client) => {
         if (error) return reject(error);
         client.on('error', (problem) => {
            // The library's own words for an ERROR frame; its headers are not shown to the application.
            if (problem.isApplicationError?.()) {
               emit({ event: 'error', headers: { message: problem.message } });
            }
            receipts.fail(problem.message);
            emit({ event: 'closed', reason: problem.message });
         });
         client.on('end', () => emit({ event: 'closed', reason: 'disconnected' }));

         const arrived = (key) => (problem, message) => {
            if (problem) return;
            const chunks = [];
            message.on('data', (chunk) => chunks.push(chunk));
            message.on('end', () => {
               const handle = messages.size + 1;
               messages.set(handle, message);
               emit({ event: 'message', key, handle, headers: message.headers, body: Buffer.concat(chunks) });
            });
         };
         // The library numbers receipts itself, and tells when one came.
         const asking = (receipt, send) => receipts.ask(receipt, {}, ({ receipt: number }) => send(
            receipt ? { onReceipt: () => receipts.arrived(number) } : undefined));

         resolve({
            details: { version: client.version?.replace?.('v', '') ?? version, ...client.headers },
            subscribe({ key, destination, headers, receipt }) {
               const all = { ...headers, id: key, destination };
               if (!receipt) return void subscriptions.set(key, client.subscribe(all, arrived(key)));
               // Its subscribe() knows no receipts: a header asks for one, and the library's table awaits it.
               return receipts.ask(true, all, (h) => {
                  const number = client._nextReceiptId++;
                  client._receipts[number] = () => receipts.arrived(h.receipt);
                  subscriptions.set(key, client.subscribe({ ...h, receipt: number }, arrived(key)));
               });
            },
            unsubscribe: ({ key, headers }) => subscriptions.get(key).unsubscribe(headers),
            send({ destination, body, headers, receipt }) {
               const content = Buffer.from(unpack(body));
               const replies = headers?.['reply-to'];
               if (replies?.startsWith('/temp-queue/') && !client.getSubscription(replies)) {
                  client.setImplicitSubscription(replies, 'auto', arrived(replies));
               }
               return asking(receipt, (options) => {
                  const all = { ...headers, destination, 'content-length': content.length };
                  client.send(all, options).end(content);
               });
            },
            ack: ({ handle, headers }) => client.ack(messages.get(handle), headers),
            nack: ({ handle, headers }) => client.nack(messages.get(handle), headers),
            begin: ({ transaction }) => void transactions.set(transaction, client.begin({ transaction })),
            commit: ({ transaction }) => transactions.get(transaction).commit(),
            abort: ({ transaction }) => transactions.get(transaction).abort(),
            close: () => new Promise((done) => client.disconnect(() => done())),
            drop: () => client.getTransportSocket().destroy(),
         });
      });
   });
}

serve({ library: 'stompit', open });
