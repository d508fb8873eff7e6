// GET /api/protected: who is asking.
"use strict";

const { Action } = require("actionhero");

exports.Protected = class Protected extends Action {
  constructor() {
    super();
    this.name = "protected";
    this.description = "Says who is asking.";
    this.middleware = ["authenticated"];
  }

  async run({ session }) {
    return { message: "Access granted", user: session.user };
  }
};
