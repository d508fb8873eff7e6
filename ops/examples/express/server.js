// An Express application in which GET /protected is for whoever keycache knows.
"use strict";

const express = require("express");
const { Keycache } = require("../keycache.js");

const keycache = new Keycache(process.env.VERIFY_URL);

// Middleware: `app.use("/api", authenticated)` protects everything below /api.
async function authenticated(request, response, next) {
  const verdict = await keycache.verify(request);
  if (verdict.status !== 200) {
    response.status(verdict.status).set(verdict.headers).json(verdict.body);
    return;
  }
  request.user = verdict.user;
  next();
}

const app = express();
// One path, one route: else /PROTECTED and /protected/ would be /protected too, but not for the
// rules of keycache.
app.enable("case sensitive routing");
app.enable("strict routing");

app.get("/protected", authenticated, (request, response) => {
  response.json({ message: "Access granted", user: request.user });
});

app.listen(process.env.PORT ?? 3000, "127.0.0.1");
