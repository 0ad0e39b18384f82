// How a value crosses the line protocol: JSON, with bytes as {"$bytes": base64}.
// Runs in Node and in a page.

export const base64 = (bytes) => {
   let text = '';
   for (const byte of bytes) text += String.fromCharCode(byte);
   return btoa(text);
};

export const unbase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

const bytesOf = (value) =>
   value instanceof ArrayBuffer ? new Uint8Array(value)
      : ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
         : null;

/** A library's value, ready for JSON.stringify. */
export function pack(value) {
   if (value === undefined || value === null) return null;
   if (typeof value === 'bigint') return Number(value);
   if (typeof value !== 'object') return value;
   const bytes = bytesOf(value);
   if (bytes) return { $bytes: base64(bytes) };
   if (Array.isArray(value)) return value.map(pack);
   const entries = value instanceof Map ? [...value] : Object.entries(value);
   return Object.fromEntries(entries.map(([k, v]) => [k, pack(v)]));
}

/** The runner's value, with bytes as `makeBytes` wants them. */
export function unpack(value, makeBytes = (bytes) => bytes) {
   if (value === null || typeof value !== 'object') return value;
   if (typeof value.$bytes === 'string') return makeBytes(unbase64(value.$bytes));
   if (Array.isArray(value)) return value.map((v) => unpack(v, makeBytes));
   return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unpack(v, makeBytes)]));
}

// WAMP over JSON writes bytes as a string: NUL, then base64. The JavaScript libraries leave
// that to the application, so the applications here (the drivers) do it.

export const toJsonBytes = (bytes) => '\0' + base64(bytes);

export function fromJsonBytes(value) {
   if (typeof value === 'string') return value.startsWith('\0') ? unbase64(value.slice(1)) : value;
   if (value === null || typeof value !== 'object' || bytesOf(value)) return value;
   if (Array.isArray(value)) return value.map(fromJsonBytes);
   return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, fromJsonBytes(v)]));
}
