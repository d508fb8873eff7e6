// Which action answers where.
"use strict";

module.exports.routes = { "GET /protected": "protected" };
