#!/bin/bash
# Builds the dashboard into the package: web/ -> src/inferd/dashboard/page.html. Without Node 20.19 and npm, or where
# npm's packages cannot be fetched, it says so and ends well: the server then shows a plain page.
set -euo pipefail
cd "$(dirname "$0")/../web"
target=../src/inferd/dashboard/page.html
newer='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'

skip() {
  echo "$1: the dashboard is not built, the server's page will say so" >&2
  exit 0
}

command -v npm > /dev/null || skip "npm is missing"
node -e "$newer" || skip "Node $(node --version) is too old, 20.19 is needed"
if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --silent || skip "npm could not install its packages"
fi
npm run --silent build -- --logLevel warn
mv dist/page.html "$target"
rmdir dist
echo "built src/inferd/dashboard/page.html, $(($(wc -c < "$target") / 1024)) kB"
