// Lifts the Sails application, as the app.js that `sails new` makes does.
"use strict";

const sails = require("sails");

sails.lift({
  appPath: __dirname,
  explicitHost: "127.0.0.1",
  port: process.env.PORT ?? 1337,
  log: { level: "warn" },
  // What this example does without; your own application has its own list.
  globals: { _: false, async: false, models: false, sails: true },
  hooks: { blueprints: false, i18n: false, pubsub: false, session: false, views: false },
});
