// webstomp-client: STOMP over WebSocket, in text or in binary WebSocket messages, or over sockjs-client.
// Its bodies are strings either way.

import webstomp from 'webstomp-client';
import SockJS from 'sockjs-client';
import WebSocket from 'ws';
import { serve } from './lib.mjs';
import { Receipts } from './receipts.mjs';

function open({ url, sockjs, version, binary, heartbeat, login, passcode, host, authorization }, emit) {
   const receipts = new Receipts();
   const messages = new Map();
   // Where headers may be set, it is by `ws`: browsers let nobody.
   const Socket = authorization ? WebSocket : globalThis.WebSocket ?? WebSocket;
   const more = authorization ? [{ headers: { Authorization: authorization } }] : [];
   const protocols = version ? [`v${version.replace('.', '')}.stomp`] : webstomp.VERSIONS.supportedProtocols();

   return new Promise((resolve, reject) => {
      const socket = sockjs
         ? new SockJS(sockjs.url, null, { transports: sockjs.transports })
         : new Socket(url, protocols, ...more);
      const client = webstomp.over(socket, {
         binary: !!binary,
         debug: false,
         heartbeat: heartbeat ? { outgoing: heartbeat[0], incoming: heartbeat[1] } : false,
         protocols,
      });
      socket.onerror = (event) => reject(new Error(`WebSocket: ${event.message ?? event.type}`));
      const arrived = (key) => (frame) => {
         const handle = messages.size + 1;
         messages.set(handle, frame);
         emit({ event: 'message', key, handle, headers: frame.headers, body: frame.body });
      };
      client.onreceive = (frame) => arrived(frame.headers.subscription)(frame);
      client.onreceipt = (frame) => receipts.arrived(frame.headers['receipt-id']);

      const failed = (what) => {
         if (what.command === 'ERROR') {
            emit({ event: 'error', headers: what.headers, body: what.body });
         } else {
            emit({ event: 'closed', reason: `${what.code} ${what.reason}` });
         }
         const reason = what.headers?.message ?? `closed: ${what.code}`;
         receipts.fail(reason);
         reject(new Error(reason));
      };
      const connected = (frame) => resolve({
         details: { ...frame.headers, protocol: socket.protocol },

         subscribe({ key, destination, headers, receipt }) {
            return receipts.ask(receipt, headers, (h) =>
               void client.subscribe(destination, arrived(key), { ...h, id: key }));
         },
         unsubscribe: ({ key, headers }) => client.unsubscribe(key, headers),
         send({ destination, body, headers, receipt }) {
            return receipts.ask(receipt, headers, (h) => client.send(destination, body, h));
         },
         ack: ({ handle, headers }) => messages.get(handle).ack(headers),
         nack: ({ handle, headers }) => messages.get(handle).nack(headers),
         begin: ({ transaction }) => void client.begin(transaction),
         commit: ({ transaction }) => client.commit(transaction),
         abort: ({ transaction }) => client.abort(transaction),
         // disconnect() closes the socket at once: a receipt could not be seen.
         close: () => client.disconnect(),
         drop: () => (socket.terminate ? socket.terminate() : socket.close()),
      });
      client.connect({ ...(login && { login, passcode }), ...(host && { host }) }, connected, failed);
   });
}

serve({ library: 'webstomp-client', open });
