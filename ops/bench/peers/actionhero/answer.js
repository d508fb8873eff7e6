// The action of the ActionHero contender; its middleware is in ../node.mjs.

const { Action } = require("actionhero");

exports.Answer = class Answer extends Action {
  constructor() {
    super();
    this.name = "answer";
    this.description = "the trivial answer that every contender gives";
  }

  async run() {
    return { message: "Access granted" };
  }
};
