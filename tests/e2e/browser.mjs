/** A browser for the tests, and a page that remembers what went wrong in it. */

import { createRequire } from 'node:module'

const require = createRequire(new URL('../../web/package.json', import.meta.url))
const { chromium } = require('playwright-core')

export const AXE = require('axe-core').source
export const BASE = process.env.INFERD_E2E_URL
export const DESKTOP = { width: 1280, height: 800 }
export const PHONE = { width: 390, height: 844 }
export const TABS = ['chat', 'live', 'requests', 'cache', 'models', 'planner', 'cost']

const FLAGS = '--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync'

export function launch() {
  const executablePath = process.env.INFERD_E2E_CHROMIUM ?? '/usr/bin/chromium'
  return chromium.launch({
    executablePath,
    headless: true,
    args: FLAGS.split(' '),
  })
}

/**
 * A page at base#tab. `problems` collects console errors and warnings, uncaught errors, refused policies, and calls to
 * any other server. answers: path -> JSON value, or a function of playwright's route.
 */
export async function open(
  browser,
  { base = BASE, tab = 'chat', viewport = DESKTOP, scheme = 'light', answers = {} } = {},
) {
  const context = await browser.newContext({
    viewport,
    colorScheme: scheme,
    permissions: ['clipboard-read', 'clipboard-write'],
  })
  const page = await context.newPage()
  const problems = []
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()))
      problems.push(`${message.type()}: ${message.text()} ${message.location().url}`)
  })
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.message}`))
  page.setDefaultTimeout(8000)
  page.on('dialog', (dialog) => (problems.push(`dialog: ${dialog.message()}`), dialog.dismiss()))
  page.on('popup', (popup) => problems.push(`window: ${popup.url()}`))
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (url.origin !== new URL(base).origin && url.protocol !== 'data:') problems.push(`call to ${url.href}`)
  })
  for (const [path, answer] of Object.entries(answers)) {
    const handler = typeof answer === 'function' ? answer : (route) => route.fulfill({ json: answer })
    await page.route(base + path, handler)
  }
  const response = await page.goto(`${base}/#${tab}`)
  return { page, context, problems, response }
}

/** An event stream of deltas, as the chat route sends it. */
export function streamed(pieces, usage = { prompt_tokens: 5, completion_tokens: pieces.length }) {
  const chunk = (delta, finish_reason = null) => ({
    choices: [{ index: 0, delta, finish_reason }],
  })
  const chunks = [...pieces.map((content) => chunk({ content })), chunk({}, 'stop'), { choices: [], usage }]
  const body = chunks.map((one) => `data: ${JSON.stringify(one)}\n\n`).join('') + 'data: [DONE]\n\n'
  return (route) => route.fulfill({ body, contentType: 'text/event-stream' })
}

/** Types a message and waits for the whole answer. */
export async function ask(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text)
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Send' }).waitFor({ timeout: 60_000 })
}

/** Presses a button that copies, and reads what it copied. */
export async function copied(page, name) {
  await page.getByRole('button', { name }).click()
  await page.getByText('Copied').waitFor()
  await page.getByText('Copied').waitFor({ state: 'detached' })
  return page.evaluate(() => navigator.clipboard.readText())
}

/** What axe finds, as one line each. */
export async function axeViolations(page) {
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => globalThis.axe.run())
  return violations.flatMap(({ id, nodes }) =>
    nodes.map((node) => `${id}: ${node.html.slice(0, 160)} (${node.failureSummary})`),
  )
}
