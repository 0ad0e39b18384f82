// AutobahnJS: WAMP over WebSocket (JSON, MessagePack, CBOR), over RawSocket (JSON only) and, with its browser
// build, by long-polling (JSON only).

import autobahn from 'autobahn';
import WebSocket from 'ws';
import { serve } from './lib.mjs';
import { Refused } from './dispatch.mjs';
import { fromJsonBytes, toJsonBytes, unpack } from './values.mjs';

// AutobahnJS wants the WebSocket of Node 22 or of a browser; in older Nodes it is `ws`.
globalThis.WebSocket ??= WebSocket;

const serializers = {
   json: () => new autobahn.serializer.JSONSerializer(),
   msgpack: () => new autobahn.serializer.MsgpackSerializer(),
   cbor: () => new autobahn.serializer.CBORSerializer(),
};

const refused = (error) => {
   if (error?.error) throw new Refused(error.error, error.args, error.kwargs);
   throw error;
};

/** What a connection needs to know to log in. */
function credentials({ method, authid, secret, seed, pubkey }) {
   const keys = seed && autobahn.nacl.sign.keyPair.fromSeed(Uint8Array.from(seed.match(/../g), (hex) => parseInt(hex, 16)));
   const onchallenge = (session, asked, extra) => {
      if (asked === 'ticket') return secret;
      if (asked === 'cryptosign') return autobahn.auth_cryptosign.sign_challenge(keys, extra);
      const { challenge, salt, iterations, keylen } = extra;
      const key = salt ? autobahn.auth_cra.derive_key(secret, salt, iterations, keylen) : secret;
      return autobahn.auth_cra.sign(key, challenge);
   };
   return { authmethods: [method], authid, onchallenge, ...(pubkey && { authextra: { pubkey } }) };
}

function open({ url, realm, serializer, transport, host, port, login }, emit) {
   const json = serializer === 'json';
   const out = (value) => unpack(value, json ? toJsonBytes : (bytes) => globalThis.Buffer?.from(bytes) ?? bytes);
   const back = (value) => (json ? fromJsonBytes(value) : value);
   const subscriptions = new Map();
   const registrations = new Map();

   const behaviours = {
      echo: (args, kwargs) => new autobahn.Result(args, kwargs),
      fail: (args, kwargs) => { throw new autobahn.Error('com.example.error.refused', args, kwargs); },
      progress: (args, kwargs, details) => {
         if (details.progress) for (const n of [1, 2]) details.progress([n]);
         return new autobahn.Result([3], {});
      },
   };

   return new Promise((resolve, reject) => {
      const connection = new autobahn.Connection({
         realm,
         max_retries: 0,
         ...(login && credentials(login)),
         on_user_error: () => {},
         transports: [({
            rawsocket: () => ({ type: 'rawsocket', host, port }),
            longpoll: () => ({ type: 'longpoll', url: `http://${host}:${port}/lp` }),
            websocket: () => ({ type: 'websocket', url, serializers: [serializers[serializer]()] }),
         })[transport]()],
      });
      connection.onclose = (reason, details) => {
         emit({ event: 'closed', reason: details?.reason || reason });
         reject(new Error(`closed: ${reason} ${JSON.stringify(details)}`));
         return true;
      };
      connection.onopen = (session, details) => resolve({
         details: { ...details, session: session.id, protocol: connection.transport?.info?.protocol },

         async subscribe({ key, topic, match }) {
            const handler = (args, kwargs, event) =>
               emit({ event: 'message', key, args: back(args), kwargs: back(kwargs), topic: event.topic });
            subscriptions.set(key, await session.subscribe(topic, handler, match ? { match } : {}).catch(refused));
         },
         async unsubscribe({ key }) {
            await session.unsubscribe(subscriptions.get(key)).catch(refused);
         },
         async publish({ topic, args, kwargs, options }) {
            await session.publish(topic, out(args), out(kwargs), options)?.catch(refused);
         },
         async register({ key, procedure, behaviour, match }) {
            const registered = session.register(procedure, behaviours[behaviour], match ? { match } : {});
            registrations.set(key, await registered.catch(refused));
         },
         async unregister({ key }) {
            await session.unregister(registrations.get(key)).catch(refused);
         },
         async call({ procedure, args, kwargs, progress }) {
            const partial = [];
            const calling = session.call(procedure, out(args), out(kwargs), progress ? { receive_progress: true } : {});
            const result = await (progress ? calling.then((r) => r, refused, (p) => partial.push(p)) : calling.catch(refused));
            // A result of exactly one argument comes as that argument.
            const whole = result instanceof autobahn.Result ? result : { args: [result], kwargs: {} };
            return { args: back(whole.args), kwargs: back(whole.kwargs), progress: partial };
         },
         close() {
            connection.close();
         },
      });
      connection.open();
   });
}

serve({ library: 'autobahn', open });
