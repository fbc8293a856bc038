import { svelte } from '@sveltejs/vite-plugin-svelte'
import { readFileSync } from 'node:fs'
import { defineConfig } from 'vite'
import { fixtures } from './fixtures/server.js'

const SHIPPED = ['svelte', 'uplot', 'marked']

/** The licences of what the page contains, as a comment: they must travel with it. */
function notices() {
  const texts = SHIPPED.map((name) => {
    const root = new URL(`./node_modules/${name}/`, import.meta.url)
    for (const file of ['LICENSE.md', 'LICENSE', 'license']) {
      try {
        return `${name}\n${readFileSync(new URL(file, root), 'utf8').trim()}`
      } catch (error) {
        if (error.code !== 'ENOENT') throw error
      }
    }
    throw new Error(`no licence file in ${name}`)
  })
  return texts.join('\n\n').replaceAll('\r', '').replaceAll('--', '- -')
}

/** One file with one <style> and one <script>: the server hashes the two for its Content-Security-Policy. */
function oneFile() {
  return {
    name: 'one-file',
    apply: 'build',
    enforce: 'post',
    generateBundle(_, bundle) {
      const files = Object.values(bundle)
      const [script, ...more] = files.filter((file) => file.type === 'chunk')
      if (more.length) throw new Error(`expected one script, got also ${more.map((file) => file.fileName)}`)
      const styles = files.filter((file) => file.fileName.endsWith('.css')).map((file) => file.source)
      const code = script.code.replaceAll('</script', '<\\/script').replaceAll('<!--', '\\x3c!--')
      const html = bundle['index.html'].source
        .replace(/\s*<script type="module"[^>]*src=[^>]*><\/script>/, '')
        .replace(/\s*<link rel="stylesheet"[^>]*>/, '')
        .replace('</head>', () => `<style>${styles.join('')}</style></head>`)
        .replace('</body>', () => `<script type="module">${code}</script></body>`)
        .concat(`<!--\n${notices()}\n-->\n`)
      for (const name of Object.keys(bundle)) delete bundle[name]
      this.emitFile({ type: 'asset', fileName: 'page.html', source: html.replaceAll('\r', '') })
    },
  }
}

export default defineConfig({
  plugins: [svelte(), fixtures(), oneFile()],
  build: {
    outDir: 'dist',
    target: 'es2022',
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
})
