// Wampy.js: WAMP over WebSocket, in JSON, MessagePack and CBOR.

import { Wampy } from 'wampy';
import { JsonSerializer } from 'wampy/JsonSerializer.js';
import { MsgpackSerializer } from 'wampy/MsgpackSerializer.js';
import { CborSerializer } from 'wampy/CborSerializer.js';
import WebSocket from 'ws';
import { serve } from './lib.mjs';
import { Refused } from './dispatch.mjs';
import { fromJsonBytes, toJsonBytes, unpack } from './values.mjs';

const serializers = { json: JsonSerializer, msgpack: MsgpackSerializer, cbor: CborSerializer };

const refused = (error) => {
   if (error?.errorUri) throw new Refused(error.errorUri, error.argsList ?? [], error.argsDict ?? {});
   throw error;
};

const challenged = {
   ticket: ({ secret }) => () => secret,
   // Imported here, as a page has no such parts.
   wampcra: async ({ secret }) => (await import('wampy/wampcra.js')).sign(secret),
   cryptosign: async ({ seed }) => (await import('wampy/cryptosign.js')).sign(seed),
};

/** What a session needs to know to log in. */
const credentials = async ({ method, authid, secret, seed, pubkey }) => ({
   authid,
   authmethods: [method],
   onChallenge: await challenged[method]({ secret, seed }),
   ...(pubkey && { authextra: { pubkey } }),
});

async function open({ url, realm, serializer, login }, emit) {
   const json = serializer === 'json';
   const out = (value) => unpack(value, json ? toJsonBytes : (bytes) => globalThis.Buffer?.from(bytes) ?? bytes);
   const back = (value) => (json ? fromJsonBytes(value) : value);
   const payload = (args, kwargs) => ({ argsList: out(args ?? []), ...(kwargs && { argsDict: out(kwargs) }) });
   const subscriptions = new Map();
   const registrations = new Map();
   const behaviours = {
      echo: ({ argsList, argsDict }) => ({ argsList: argsList ?? [], ...(argsDict && { argsDict }) }),
      fail: ({ argsList, argsDict }) => {
         throw { error: 'com.example.error.refused', details: {}, argsList, argsDict };
      },
      progress: ({ details, result_handler }) => {
         if (details.receive_progress) {
            for (const n of [1, 2]) result_handler({ argsList: [n], options: { progress: true } });
         }
         return { argsList: [3] };
      },
   };

   const wampy = new Wampy(url, {
      ws: globalThis.WebSocket ?? WebSocket,
      realm,
      serializer: new serializers[serializer](),
      autoReconnect: false,
      ...(login && await credentials(login)),
      // The strict rule refuses '..' in a wildcard.
      uriValidation: 'loose',
      onClose: () => emit({ event: 'closed', reason: 'closed' }),
      onError: (error) => emit({ event: 'trouble', message: String(error?.message ?? error) }),
   });
   const details = await wampy.connect().catch(refused);

   return {
      details: { ...details, session: wampy.getSessionId() },

      async subscribe({ key, topic, match }) {
         const handler = (event) => emit({
            event: 'message', key, args: back(event.argsList ?? []), kwargs: back(event.argsDict ?? {}),
            topic: event.details?.topic,
         });
         const options = match ? { match } : undefined;
         subscriptions.set(key, await wampy.subscribe(topic, handler, options).catch(refused));
      },
      async unsubscribe({ key }) {
         await wampy.unsubscribe(subscriptions.get(key).subscriptionKey).catch(refused);
      },
      async publish({ topic, args, kwargs, options }) {
         // Wampy always asks for an acknowledgement.
         const { acknowledge, ...rest } = options ?? {};
         await wampy.publish(topic, payload(args, kwargs), rest).catch(refused);
      },
      async register({ key, procedure, behaviour, match }) {
         registrations.set(key, procedure);
         await wampy.register(procedure, behaviours[behaviour], match ? { match } : undefined).catch(refused);
      },
      async unregister({ key }) {
         await wampy.unregister(registrations.get(key)).catch(refused);
      },
      async call({ procedure, args, kwargs, progress }) {
         const partial = [];
         const options = progress ? { progress_callback: (part) => partial.push(part.argsList[0]) } : undefined;
         const result = await wampy.call(procedure, payload(args, kwargs), options).catch(refused);
         return { args: back(result.argsList ?? []), kwargs: back(result.argsDict ?? {}), progress: partial };
      },
      async close() {
         await wampy.disconnect();
      },
   };
}

serve({ library: 'wampy', open });
