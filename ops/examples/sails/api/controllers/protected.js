// GET /protected: who is asking.
"use strict";

module.exports = function showUser(req, res) {
  return res.json({ message: "Access granted", user: req.user });
};
