// `ws`, a bare WebSocket client: for what a handshake and single frames must do.

import WebSocket from 'ws';
import { serve } from './lib.mjs';
import { unpack } from './values.mjs';

function open({ url, protocols, compression, headers }, emit) {
   return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, protocols, { perMessageDeflate: !!compression, headers });
      socket.on('unexpected-response', (request, response) => {
         resolve({ details: { status: response.statusCode }, close() {} });
         request.destroy();
      });
      socket.on('error', reject);
      socket.on('message', (data, isBinary) =>
         emit({ event: 'message', key: 'frame', body: isBinary ? data : data.toString() }));
      socket.on('pong', (data) => emit({ event: 'message', key: 'pong', body: data }));
      socket.on('close', (code, reason) => emit({ event: 'closed', code, reason: reason.toString() }));
      socket.on('open', () => resolve({
         details: { status: 101, protocol: socket.protocol, extensions: socket.extensions },
         write({ body }) {
            const data = unpack(body);
            return new Promise((done) => socket.send(data, { binary: typeof data !== 'string' }, () => done()));
         },
         ping: ({ body }) => socket.ping(unpack(body)),
         close: ({ code }) => socket.close(code ?? 1000),
         drop: () => socket.terminate(),
      }));
   });
}

serve({ library: 'ws', open });
