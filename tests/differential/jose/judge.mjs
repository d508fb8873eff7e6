// jose's verdict on one token after another: a JSON line in, a JSON line out.
//
// The first line is {jwks, options, now}; every other one is a token, as a JSON string. The answer is
// "accepted", jose's error code, or the name of an error that is none of jose's.
import { createInterface } from "node:readline";
import { createLocalJWKSet, errors, jwtVerify } from "jose";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { jwks, options, now } = JSON.parse((await lines.next()).value);
const keys = createLocalJWKSet(jwks);
const settings = { ...options, currentDate: new Date(now * 1000) };

for await (const line of lines) {
  let verdict = "accepted";
  try {
    await jwtVerify(JSON.parse(line), keys, settings);
  } catch (error) {
    verdict = error instanceof errors.JOSEError ? error.code : error.name;
  }
  process.stdout.write(JSON.stringify(verdict) + "\n");
}
