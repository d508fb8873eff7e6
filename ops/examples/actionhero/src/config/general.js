// Where the files of this project are.
"use strict";

const path = require("node:path");

const folder = (name) => [path.join(__dirname, "..", name)];

exports.DEFAULT = {
  general: () => ({
    paths: { action: folder("actions"), initializer: folder("initializers") },
  }),
};
