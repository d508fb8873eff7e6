// Asks keycache's /verify who a request comes from: the one file that all Node examples share.
//
// Copy it as it is: it needs Node 18.3 or newer and no package. Make one Keycache for the whole
// process, because it holds the connections.
//
//     const keycache = new Keycache("http://127.0.0.1:8000/verify");
//     const verdict = await keycache.verify(request);
//     verdict.status === 200 ? verdict.user : send(verdict.status, verdict.headers, verdict.body)
//
// `verify` never throws, and says 200 only when keycache has said 200 and who it is. No verdict is
// kept: keycache marks its answers `no-store` and remembers known tokens itself.
"use strict";

const http = require("node:http");
const https = require("node:https");

const ANSWER_BYTES = 65536; // what keycache answers has less than a tenth of that
const IDLE_MS = 60000; // keycache closes an idle connection after 75 s: we are to be first
const REFUSALS = new Set([400, 401, 403, 503]);
const PASSED_ON = ["WWW-Authenticate", "Retry-After", "Cache-Control", "X-Request-ID"];

class Keycache {
  #url;
  #deadline;
  #client;
  #agent;

  // url: where /verify is. deadline: milliseconds for everything together; keycache itself waits
  // 1.5 s at most, for a key that it must fetch first.
  constructor(url = "http://127.0.0.1:8000/verify", { deadline = 3000 } = {}) {
    this.#url = new URL(url);
    this.#deadline = deadline;
    this.#client = this.#url.protocol === "https:" ? https : http;
    this.#agent = new this.#client.Agent({ keepAlive: true, timeout: IDLE_MS });
  }

  // { status: 200, user: { sub, iss, scopes } }: it may go on; user is null where a rule of
  // keycache's lets strangers in. { status, headers, body }: answer exactly that.
  async verify(request) {
    let answer;
    try {
      answer = await this.#ask(questionAbout(request));
      if (answer.status === 200) return { status: 200, user: identity(answer.headers) };
      if (REFUSALS.has(answer.status)) return refusal(answer);
    } catch {
      // Nobody there, too slow, or not keycache: we cannot know, so the client should try again.
    }
    return {
      status: 503,
      headers: { "Retry-After": "1", "Cache-Control": "no-store" },
      body: {
        error: "Temporarily unavailable",
        reason: "temporarily_unavailable",
        details: "The token could not be verified.",
      },
    };
  }

  #ask(headers) {
    return new Promise((resolve, reject) => {
      let asked;
      let timer;
      const settle = (how, value) => {
        clearTimeout(timer);
        how(value);
      };
      const send = () => {
        asked = this.#client.get(this.#url, { agent: this.#agent, headers }, (answer) => {
          const parts = [];
          let bytes = 0;
          answer.on("data", (part) => {
            parts.push(part);
            bytes += part.length;
            if (bytes > ANSWER_BYTES) asked.destroy(new Error("too long"));
          });
          answer.on("error", (error) => settle(reject, error));
          answer.on("end", () => {
            const body = Buffer.concat(parts).toString();
            settle(resolve, { status: answer.statusCode, headers: answer.headers, body });
          });
        });
        asked.on("error", (error) => {
          // It closed an idle connection in the moment that we used it (RFC 9112 section 9.3.1).
          if (asked.reusedSocket && error.code === "ECONNRESET") send();
          else settle(reject, error);
        });
      };
      send();
      timer = setTimeout(() => asked.destroy(new Error("too slow")), this.#deadline);
    });
  }
}

// Of the client's header fields only Authorization is passed on, all of them if there are several,
// which keycache refuses and Node would hide. The other two are for keycache's rules.
function questionAbout(request) {
  const fields = request.headersDistinct ?? request.headers;
  const headers = {
    "X-Original-Method": request.method,
    "X-Original-URI": request.originalUrl ?? request.url,
  };
  if (fields.authorization !== undefined) headers.Authorization = fields.authorization;
  return headers;
}

// Who it is, as keycache's answer says; what the client sent under these names is never read.
// Each value is percent-encoded UTF-8, for a header field holds ASCII only.
function identity(headers) {
  const [sub, iss, scope] = ["subject", "issuer", "scope"].map((name) => {
    const value = headers[`x-auth-${name}`];
    if (value === undefined) throw new Error("an answer of 200 that is not keycache's");
    return value;
  });
  if (iss === "") return null;
  const scopes = scope.split(" ").filter((one) => one !== "");
  return {
    sub: decodeURIComponent(sub),
    iss: decodeURIComponent(iss),
    scopes: scopes.map((one) => decodeURIComponent(one)),
  };
}

function refusal({ status, headers, body }) {
  const passed = PASSED_ON.filter((name) => headers[name.toLowerCase()] !== undefined);
  return {
    status,
    headers: Object.fromEntries(passed.map((name) => [name, headers[name.toLowerCase()]])),
    body: JSON.parse(body),
  };
}

module.exports = { Keycache };
