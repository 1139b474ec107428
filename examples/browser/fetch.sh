#!/bin/sh
# Fetch onnxruntime-web, pinned, from the npm registry into the folder onnxruntime-web beside the page.
set -eu
cd "$(dirname "$0")"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
npm pack --silent --pack-destination "$temporary" onnxruntime-web@1.30.0 >/dev/null
tar -xzf "$temporary"/onnxruntime-web-1.30.0.tgz -C "$temporary"
rm -rf onnxruntime-web
mkdir onnxruntime-web
for file in ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm; do
  cp "$temporary/package/dist/$file" onnxruntime-web/
done
