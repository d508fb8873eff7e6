// ActionHero's own Redis, which is none of keycache's.
"use strict";

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0";
const connection = () => ({ konstructor: require("ioredis"), args: [url], buildNew: true });

exports.DEFAULT = {
  redis: () => ({
    _toExpand: false, // the constructor is a value, and is not to be called
    client: connection(),
    subscriber: connection(),
    tasks: connection(),
  }),
};
