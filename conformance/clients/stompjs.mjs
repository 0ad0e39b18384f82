// @stomp/stompjs: STOMP over WebSocket, in text or in binary WebSocket messages, or over sockjs-client.

import { Client, Versions } from '@stomp/stompjs';
import SockJS from 'sockjs-client';
import WebSocket from 'ws';
import { serve } from './lib.mjs';
import { Receipts } from './receipts.mjs';
import { unpack } from './values.mjs';

function open({ url, sockjs, version, binary, heartbeat, login, passcode, host, authorization }, emit) {
   const receipts = new Receipts();
   const messages = new Map();
   const transactions = new Map();
   // Where headers may be set, it is by `ws`: browsers let nobody.
   const Socket = authorization ? WebSocket : globalThis.WebSocket ?? WebSocket;
   const more = authorization ? [{ headers: { Authorization: authorization } }] : [];
   const versions = new Versions(version ? [version] : ['1.2', '1.1', '1.0']);

   return new Promise((resolve, reject) => {
      const client = new Client({
         webSocketFactory: () => sockjs
            ? new SockJS(sockjs.url, null, { transports: sockjs.transports })
            : new Socket(url, versions.protocolVersions(), ...more),
         stompVersions: versions,
         connectHeaders: { ...(login && { login, passcode }), ...(host && { host }) },
         forceBinaryWSFrames: !!binary,
         reconnectDelay: 0,
         heartbeatOutgoing: heartbeat?.[0] ?? 0,
         heartbeatIncoming: heartbeat?.[1] ?? 0,
      });
      const arrived = (key) => (message) => {
         const handle = messages.size + 1;
         messages.set(handle, message);
         emit({ event: 'message', key, handle, headers: message.headers, body: message.binaryBody });
      };
      client.onUnhandledMessage = (message) => arrived(message.headers.subscription)(message);
      client.onUnhandledReceipt = (frame) => receipts.arrived(frame.headers['receipt-id']);
      client.onStompError = (frame) => {
         emit({ event: 'error', headers: frame.headers, body: frame.body });
         receipts.fail(`ERROR: ${frame.headers.message}`);
         reject(new Error(`ERROR: ${frame.headers.message}`));
      };
      client.onWebSocketClose = (event) => {
         emit({ event: 'closed', reason: `${event.code} ${event.reason}` });
         receipts.fail(`closed: ${event.code}`);
         reject(new Error(`closed: ${event.code} ${event.reason}`));
      };
      client.onWebSocketError = (event) => reject(new Error(`WebSocket: ${event.message ?? event.type}`));

      client.onConnect = (frame) => resolve({
         details: {
            ...frame.headers, version: client.connectedVersion,
            transport: client.webSocket?.transport ?? 'websocket',
            denied: typeof globalThis.document !== 'undefined' && typeof globalThis.WebSocket === 'undefined',
         },

         subscribe({ key, destination, headers, receipt }) {
            return receipts.ask(receipt, headers, (h) =>
               void client.subscribe(destination, arrived(key), { ...h, id: key }));
         },
         unsubscribe({ key, headers }) {
            client.unsubscribe(key, headers);
         },
         send({ destination, body, headers, receipt }) {
            const content = unpack(body);
            return receipts.ask(receipt, headers, (h) => client.publish({
               destination, headers: h, ...(typeof content === 'string' ? { body: content } : { binaryBody: content }),
            }));
         },
         ack: ({ handle, headers }) => messages.get(handle).ack(headers),
         nack: ({ handle, headers }) => messages.get(handle).nack(headers),
         begin: ({ transaction }) => void transactions.set(transaction, client.begin(transaction)),
         commit: ({ transaction }) => transactions.get(transaction).commit(),
         abort: ({ transaction }) => transactions.get(transaction).abort(),
         async close() {
            await client.deactivate();
         },
         drop: () => client.forceDisconnect(),
      });
      client.activate();
   });
}

serve({ library: '@stomp/stompjs', open });
