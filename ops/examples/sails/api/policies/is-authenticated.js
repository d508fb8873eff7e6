// Policy: lets a request on when keycache knows whom it comes from, and says so in req.user.
"use strict";

const { Keycache } = require("../../../keycache.js");

const keycache = new Keycache(process.env.VERIFY_URL);

module.exports = async function isAuthenticated(req, res, proceed) {
  const verdict = await keycache.verify(req);
  if (verdict.status !== 200) {
    return res.status(verdict.status).set(verdict.headers).json(verdict.body);
  }
  req.user = verdict.user;
  return proceed();
};
