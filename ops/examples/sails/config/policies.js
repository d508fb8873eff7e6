// Every action needs a token; name the exceptions: `"health/show": true`.
"use strict";

module.exports.policies = { "*": "is-authenticated" };
