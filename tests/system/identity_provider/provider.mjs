// The certified oidc-provider, run by the system tests as a child process.
//
// It listens on a free port of 127.0.0.1 and says one line of JSON on stdout: {"issuer": ...}. Each
// line on stdin is a command, and each is answered with one line:
//
//   {"do": "rotate", "keep": true}   new keys sign from now on; the old ones stay published, or not
//   {"do": "count"}                  how often the key set was asked for
//
// It ends when stdin does, so it cannot outlive the tests.
//
// Tokens come from the client credentials grant (RFC 6749 section 4.4) with a resource indicator
// (RFC 8707), as JWT access tokens (RFC 9068). The client chooses the algorithm: each client is
// named after the one its tokens are signed with.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

// stdout is for answers; what the library has to say goes to stderr.
console.info = console.warn = console.log = console.error;

const KEY_TYPES = {
  RS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};

function newKeys() {
  return Object.entries(KEY_TYPES).map(([alg, [type, options]]) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    kid: `${alg.toLowerCase()}-${randomUUID()}`,
    use: 'sig',
    alg,
  }));
}

function newProvider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: Object.keys(KEY_TYPES).map((alg) => ({
      client_id: alg,
      client_secret: 'a secret that everybody in the tests knows',
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    })),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        // Every resource exists, allows every scope, and gets a JWT that is valid for an hour.
        getResourceServerInfo: (ctx, resource, client) => ({
          scope: ctx.oidc.params.scope ?? '',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: 3600,
          jwt: { sign: { alg: client.clientId } },
        }),
      },
    },
  });
}

let keys = newKeys();
let handle;
let fetches = 0;

const server = createServer((request, response) => {
  if (new URL(request.url, 'http://provider').pathname === '/jwks') {
    fetches += 1;
  }
  handle(request, response);
});

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  // The library reads its keys once; other keys are another provider behind the same port.
  const serve = () => {
    handle = newProvider(issuer, keys).callback();
  };
  serve();
  answer({ issuer });

  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const command = JSON.parse(line);
      if (command.do === 'rotate') {
        // The first key that fits signs.
        keys = [...newKeys(), ...(command.keep ? keys : [])];
        serve();
      }
      answer({ fetches });
    })
    .on('close', () => process.exit(0));
});
