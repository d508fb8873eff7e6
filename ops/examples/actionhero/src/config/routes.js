// Which action answers where.
"use strict";

exports.DEFAULT = {
  routes: () => ({ get: [{ path: "/protected", action: "protected" }] }),
};
