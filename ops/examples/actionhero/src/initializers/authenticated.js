// The middleware `authenticated`: an action that names it runs for whoever keycache knows, and
// finds the user in `data.session.user`.
"use strict";

const { Initializer, action } = require("actionhero");
const { Keycache } = require("../../../keycache.js");

const keycache = new Keycache(process.env.VERIFY_URL);
const noToken = { status: 401, headers: {}, body: { error: "No token provided" } };

// Thrown, because only an error keeps the middleware behind this one, and the action, from running.
class Refused extends Error {
  stack = undefined; // no bug: ActionHero's log needs one line
}

const authenticated = {
  name: "authenticated",
  global: false, // true: for every action, those of ActionHero itself included
  priority: 10, // before the middleware that relies on the user (100 unless it says otherwise)

  async preProcessor(data) {
    // Only a web request has header fields; who connects by WebSocket has no token here.
    const web = data.connection.type === "web";
    const raw = data.connection.rawConnection;
    const verdict = web ? await keycache.verify(raw.req) : noToken;
    if (verdict.status === 200) {
      data.session.user = verdict.user;
      return;
    }
    if (web) {
      raw.responseHttpCode = verdict.status;
      raw.responseHeaders.push(...Object.entries(verdict.headers));
    }
    data.response = verdict.body;
    throw new Refused(verdict.body.error);
  },
};

exports.Authenticated = class Authenticated extends Initializer {
  constructor() {
    super();
    this.name = "authenticated";
  }

  async initialize() {
    action.addMiddleware(authenticated);
  }
};
