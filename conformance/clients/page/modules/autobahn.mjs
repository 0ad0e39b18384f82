export default globalThis.autobahn;
