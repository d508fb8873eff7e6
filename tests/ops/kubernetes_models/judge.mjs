// Judges Kubernetes manifests by the schemas of the API: a JSON list in, a list of problems out.
//
// kubernetes-models has each schema of the API server's OpenAPI document, and of the Prometheus
// operator's own resources, twice: as a function, which knows what must be there and of which form,
// and as a TypeScript type, which knows what else there may be. A field that no schema knows is a
// problem too, as it is for `kubectl apply --validate=strict`.

import { readFileSync } from "node:fs";
import ts from "typescript";

const OPERATOR = "monitoring.coreos.com";

function module({ apiVersion, kind }) {
  const group = apiVersion.split("/")[0];
  const source = group === OPERATOR ? "@kubernetes-models/prometheus-operator" : "kubernetes-models";
  return `${source}/${apiVersion}/${kind}`;
}

async function malformed(manifest) {
  try {
    const { [manifest.kind]: Model } = await import(module(manifest));
    new Model(manifest).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

// An object literal with a field that its type does not have is an error to TypeScript.
function unknown(manifests) {
  const folder = new URL(".", import.meta.url).pathname;
  const texts = new Map(
    manifests.map((manifest, number) => [
      `${folder}${number}.mts`,
      `import type { I${manifest.kind} as T } from "${module(manifest)}";
export const manifest: T = ${JSON.stringify(manifest)};`,
    ]),
  );
  const options = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile, readFile } = host;
  host.fileExists = (file) => texts.has(file) || fileExists(file);
  host.readFile = (file) => texts.get(file) ?? readFile(file);
  host.getSourceFile = (file, version) =>
    texts.has(file)
      ? ts.createSourceFile(file, texts.get(file), version)
      : getSourceFile(file, version);
  const program = ts.createProgram([...texts.keys()], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => {
    const manifest = manifests[[...texts.keys()].indexOf(file?.fileName)];
    return [manifest, ts.flattenDiagnosticMessageText(messageText, " ")];
  });
}

const manifests = JSON.parse(readFileSync(0, "utf8"));
const problems = unknown(manifests);
for (const manifest of manifests) {
  problems.push(...(await malformed(manifest)).map((problem) => [manifest, problem]));
}
console.log(
  JSON.stringify(problems.map(([m, problem]) => `${m?.kind} ${m?.metadata?.name}: ${problem}`)),
);
