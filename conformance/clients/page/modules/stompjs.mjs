export const { Client, Versions } = globalThis.StompJs;
