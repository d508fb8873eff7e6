// The Node contenders of ops/bench/peers.py: one server each, two workers of the cluster module.
//
//     node node.mjs KIND PORT ISSUER AUDIENCE
//
// KIND is a framework and, after a +, how it verifies; without that it is the bare server. Each
// library is used as its own README does, with its defaults but for sizes of caches of tokens, which
// are as large as ours.

import cluster from "node:cluster";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const [kind, port, issuer, audience] = process.argv.slice(2);
const [framework, way] = kind.split("+");
const jwksUri = `${issuer}/.well-known/jwks.json`;
const algorithms = ["RS256", "ES256"];
const ANSWER = { message: "Access granted" };
const REFUSAL = { error: "Invalid token" };
const CACHED_TOKENS = 10_000;

// Each returns (token) => a promise of the claims, which fails for a bad token.
const verifiers = {
  "jwks-rsa": () => {
    const jwt = require("jsonwebtoken");
    const client = require("jwks-rsa")({ jwksUri });
    const getKey = (header, callback) =>
      client.getSigningKey(header.kid, (error, key) => callback(error, key?.getPublicKey()));
    return (token) =>
      new Promise((resolve, reject) => {
        jwt.verify(token, getKey, { algorithms, audience, issuer }, (error, claims) =>
          error ? reject(error) : resolve(claims),
        );
      });
  },
  "fast-jwt": () => fastJwt(CACHED_TOKENS),
  "fast-jwt-uncached": () => fastJwt(false),
  jose: async () => {
    const { createRemoteJWKSet, jwtVerify } = await import("jose");
    const keys = createRemoteJWKSet(new URL(jwksUri));
    return (token) => jwtVerify(token, keys, { algorithms, audience, issuer });
  },
};

function fastJwt(cache) {
  const { createVerifier } = require("fast-jwt");
  const getJwks = require("get-jwks")({ issuersWhitelist: [`${issuer}/`] });
  return createVerifier({
    key: ({ header }) => getJwks.getPublicKey({ kid: header.kid, alg: header.alg, domain: issuer }),
    cache,
    algorithms,
    allowedIss: issuer,
    allowedAud: audience,
  });
}

function bearer(headers) {
  const [scheme, token] = (headers.authorization ?? "").split(" ");
  if (scheme.toLowerCase() !== "bearer" || !token) throw new Error("no token");
  return token;
}

const frameworks = {
  express: async (verify) => {
    const app = require("express")();
    if (verify) {
      app.use(async (request, response, next) => {
        try {
          request.user = await verify(bearer(request.headers));
        } catch {
          response.status(401).json(REFUSAL);
          return;
        }
        next();
      });
    }
    app.get("/api/answer", (request, response) => response.json(ANSWER));
    app.listen(port, "127.0.0.1");
  },

  fastify: async (verify) => {
    const app = require("fastify")();
    if (verify) {
      app.decorateRequest("user", null);
      app.addHook("onRequest", async (request, reply) => {
        try {
          request.user = await verify(bearer(request.headers));
        } catch {
          return reply.code(401).send(REFUSAL);
        }
      });
    }
    app.get("/api/answer", async () => ANSWER);
    await app.listen({ port: Number(port), host: "127.0.0.1" });
  },

  sails: async (verify) => {
    process.env.NODE_ENV = "production";
    const isAuthorized = async (request, response, proceed) => {
      try {
        request.user = await verify(bearer(request.headers));
      } catch {
        return response.status(401).json(REFUSAL);
      }
      return proceed();
    };
    const { Sails } = require("sails");
    await new Promise((resolve, reject) => {
      new Sails().lift(
        {
          port: Number(port),
          explicitHost: "127.0.0.1",
          log: { level: "error" },
          globals: false,
          // An API has neither; the hooks of Grunt, sockets and ORM are packages of their own.
          hooks: { session: false, views: false },
          routes: { "GET /api/answer": { action: "answer" } },
          controllers: {
            moduleDefinitions: { answer: (request, response) => response.json(ANSWER) },
          },
          policies: { "*": verify ? isAuthorized : true },
        },
        (error) => (error ? reject(error) : resolve()),
      );
    });
  },

  actionhero: async (verify) => {
    // The rest of its configuration is its own default, in production; peers.py names a Redis.
    process.env.NODE_ENV = "production";
    process.env.LOG_LEVEL = "crit";
    process.env.ACTIONHERO_CONFIG = require.resolve("actionhero").replace(/index\.js$/, "config");
    process.env.ACTIONHERO_CONFIG_OVERRIDES = JSON.stringify({
      general: { paths: { action: [`${import.meta.dirname}/actionhero`] } },
      web: { port: Number(port), bindIP: "127.0.0.1" },
      routes: { get: [{ path: "/answer", action: "answer" }] },
      websocket: { enabled: false },
    });
    const { Process, action } = require("actionhero");
    const server = new Process();
    await server.initialize();
    if (verify) {
      action.addMiddleware({
        name: "token",
        global: true,
        preProcessor: async (data) => {
          try {
            data.session = await verify(bearer(data.connection.rawConnection.req.headers));
          } catch {
            data.connection.rawConnection.responseHttpCode = 401;
            throw new Error(REFUSAL.error);
          }
        },
      });
    }
    await server.start();
  },
};

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  cluster.on("exit", () => process.exit(1));
} else {
  await frameworks[framework](way && (await verifiers[way]()));
}
