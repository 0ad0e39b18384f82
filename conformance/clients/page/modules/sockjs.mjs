export default globalThis.SockJS;
