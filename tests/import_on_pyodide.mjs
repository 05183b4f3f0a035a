// Imports every module of the package, with warnings as errors, on the Python that the
// npm package `pyodide` is. Its event loop is the browser's, so nothing is run there.
// Arguments: a folder with `node_modules/pyodide`, and one with wheels.
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const IMPORT_ALL = `
import importlib, os, pkgutil, sys, warnings

warnings.simplefilter("error")
os.environ["LIFESPAN_GUARD_APP"] = "main:app"
import asgi_lifespan_guard as package

found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
names = [importlib.import_module(module.name).__name__ for module in found]
f"{len(names)} modules were imported on Python {sys.version.split()[0]}"
`;

const [modules, wheels] = process.argv.slice(2).map((folder) => resolve(folder));
const entry = join(modules, "node_modules/pyodide/pyodide.mjs");
const { loadPyodide } = await import(pathToFileURL(entry));
const python = await loadPyodide();
for (const name of readdirSync(wheels)) {
  python.unpackArchive(new Uint8Array(readFileSync(join(wheels, name))), "wheel");
}
console.log(python.runPython(IMPORT_ALL));
