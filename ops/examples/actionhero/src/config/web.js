// Answers as keycache words them: without ActionHero's additions to every answer.
"use strict";

exports.DEFAULT = {
  web: () => ({
    port: process.env.PORT ?? 8080,
    bindIP: "127.0.0.1",
    padding: null,
    metadataOptions: { serverInformation: false, requesterInformation: false },
  }),
};
