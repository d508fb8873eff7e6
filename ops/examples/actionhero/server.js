// Starts the ActionHero application, as the server that `actionhero generate` makes does.
"use strict";

// Its projects are TypeScript, compiled into dist/. These few files are JavaScript as they stand.
process.env.ACTIONHERO_CONFIG ??= `${__dirname}/src/config`;

const { Process } = require("actionhero");

const app = new Process();
app.registerProcessSignals((exitCode) => process.exit(exitCode));
app.start();
