// Receipts asked for and not yet here. A STOMP ERROR, or the end of the connection, ends the wait.

export class Receipts {
   #waiting = new Map();
   #next = 1;

   /** Calls `send(headers)` with a receipt header if one is wanted; resolves when it has come. */
   ask(wanted, headers, send) {
      if (!wanted) return send(headers);
      const id = `receipt-${this.#next++}`;
      const arrival = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
      send({ ...headers, receipt: id });
      return arrival;
   }

   arrived(id) {
      this.#waiting.get(id)?.resolve({ receipt: id });
      this.#waiting.delete(id);
   }

   fail(reason) {
      for (const { reject } of this.#waiting.values()) reject(new Error(reason));
      this.#waiting.clear();
   }
}
