// wampy.js sets Wampy, wampy-all.js the serializers (it leaves Wampy out).
export const { Wampy, JsonSerializer, MsgpackSerializer, CborSerializer } = globalThis;
