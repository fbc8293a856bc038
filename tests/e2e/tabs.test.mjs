/** Every view: draws what the server says, breaks no rule of accessibility, calls nobody else, fits a phone. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { state } from '../../web/fixtures/state.js'
import { ask, axeViolations, BASE, DESKTOP, launch, open, PHONE, TABS } from './browser.mjs'

let browser
before(async () => (browser = await launch()))
after(() => browser.close())

/** The second view of each tab, with what a user would have it show. */
async function fill(page, tab) {
  if (tab === 'chat')
    await ask(page, '# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] `code`\n\n```py\nx = 1\n```\n')
  if (tab === 'planner') {
    await page.getByRole('button', { name: 'Plan', exact: true }).click()
    await page.getByText('Memory of one device').first().waitFor()
    for (const summary of await page.locator('details.panel summary').all()) await summary.click()
  }
  await page.waitForTimeout(tab === 'live' ? 1100 : 300) // one poll for the charts
}

for (const [scheme, viewport] of [
  ['light', DESKTOP],
  ['dark', DESKTOP],
  ['light', PHONE],
  ['dark', PHONE],
]) {
  test(`every tab, ${scheme}, ${viewport.width} wide`, async () => {
    const { page, context, problems } = await open(browser, {
      viewport,
      scheme,
    })
    const violations = []
    for (const tab of TABS) {
      await page.goto(`${BASE}/#${tab}`)
      await page.locator('nav a[aria-current]').getByText(tab, { exact: false }).waitFor()
      await page.getByRole('heading', { level: 1 }).waitFor({ state: 'attached' })
      await fill(page, tab)
      violations.push(...(await axeViolations(page)).map((violation) => `${tab}: ${violation}`))
      const width = await page.evaluate(() => document.documentElement.scrollWidth)
      assert.ok(width <= viewport.width, `${tab} is ${width} px wide`)
    }
    assert.deepEqual([...violations, ...problems], [])
    await context.close()
  })
}

test('live figures are the ones of the server', async () => {
  const { page, context, problems } = await open(browser, { tab: 'chat' })
  await ask(page, 'count me')
  await page.goto(`${BASE}/#models`)
  await page.waitForTimeout(1200) // until the request's end was counted
  const { requests } = (await (await fetch(`${BASE}/inferd/state`)).json()).models[0].totals
  assert.ok(requests >= 1)
  await page.getByText(new RegExp(`^${requests.toLocaleString('en')} ended`)).waitFor()
  await page.goto(`${BASE}/#requests`)
  await page.locator('tbody tr').first().waitFor()
  assert.deepEqual(problems, [])
  await context.close()
})

test('the timeline is drawn to scale', async () => {
  const made = state()
  const times = [
    [0, 1, 2, 5],
    [2, 0, 1, 1],
  ] // arrival, queue, prefill, decode: in seconds
  made.requests = times.map(([arrival, queue, prefill, decode], index) => ({
    ...made.requests[index],
    arrival: made.now + arrival,
    queue,
    prefill,
    decode,
  }))
  const { page, context } = await open(browser, {
    tab: 'requests',
    answers: { '/inferd/state': made },
  })
  await page.locator('tbody tr').first().waitFor()
  const drawn = () =>
    page.locator('.line div').evaluateAll((lines) =>
      lines.map((line) => {
        const all = line.getBoundingClientRect()
        return [...line.children]
          .map((bar) => bar.getBoundingClientRect())
          .map((bar) => [(8 * (bar.left - all.left)) / all.width, (8 * bar.width) / all.width].map(Math.round))
      }),
    )
  assert.deepEqual(await drawn(), [
    [
      [2, 1],
      [3, 1],
    ],
    [
      [0, 1],
      [1, 2],
      [3, 5],
    ],
  ]) // start and length in seconds, newest first
  await page.getByRole('button', { name: 'Side by side' }).click()
  assert.deepEqual(await drawn(), [
    [
      [0, 1],
      [1, 1],
    ],
    [
      [0, 1],
      [1, 2],
      [3, 5],
    ],
  ])
  await context.close()
})

test('with two models, the chosen one is shown everywhere and asked', async () => {
  const made = state()
  made.models.push({ ...made.models[0], name: 'mock/model', num_blocks: 77 })
  const { page, context } = await open(browser, { tab: 'cache', answers: { '/inferd/state': made } })
  await page.getByText('smollm2: 1,024 blocks').waitFor()
  await page.getByLabel('Model', { exact: true }).selectOption('mock/model')
  await page.getByText('mock/model: 77 blocks').waitFor()
  await page.goto(`${BASE}/#chat`)
  await ask(page, 'to the chosen one')
  await page.locator('.answer').getByText('to the chosen one').first().waitFor()
  await context.close()
})

test('a plan that cannot be made says why', async () => {
  const { page, context } = await open(browser, { tab: 'planner' })
  await page.getByLabel('Rate').fill('-1')
  await page.getByLabel('Rate').evaluate((field) => field.removeAttribute('min'))
  await page.getByRole('button', { name: 'Plan', exact: true }).click()
  await page.getByRole('alert').getByText('rate must be from').waitFor()
  await context.close()
})

test('a server that went away is told, and found again', async () => {
  const { page, context } = await open(browser, { tab: 'live' })
  await page.getByText('connected', { exact: true }).waitFor()
  await page.route('**/inferd/state', (route) => route.abort())
  await page.getByRole('alert').getByText('cannot be reached').waitFor()
  await page.unroute('**/inferd/state')
  await page.getByText('connected', { exact: true }).waitFor()
  assert.equal(await page.getByRole('alert').count(), 0)
  await context.close()
})

test('a server of another version, without state, still has a chat', async () => {
  const answers = {
    '/inferd/state': (route) => route.fulfill({ status: 404, json: { error: { message: 'nothing' } } }),
  }
  const { page, context } = await open(browser, { tab: 'live', answers })
  await page.getByText('This server tells no state').waitFor()
  await page.goto(`${BASE}/#chat`)
  await ask(page, 'still here')
  await page.locator('.answer').getByText('still here').waitFor()
  await context.close()
})

test('colours follow the button, and are remembered', async () => {
  const { page, context } = await open(browser)
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor)
  const light = await background()
  await page.getByRole('button', { name: 'Colours: auto' }).click()
  assert.equal(await background(), light)
  await page.getByRole('button', { name: 'Colours: light' }).click()
  const dark = await background()
  assert.notEqual(dark, light)
  await page.reload()
  assert.equal(await background(), dark)
  await context.close()
})

test('the page works with the network gone but for the server', async () => {
  const { page, context, problems } = await open(browser, { tab: 'live' })
  assert.equal(
    await page.evaluate(
      () => performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length,
    ),
    0,
  )
  const refused = await page.evaluate(() =>
    fetch('https://example.org/').then(
      () => 'let through',
      () => 'refused',
    ),
  )
  assert.equal(refused, 'refused')
  assert.ok(
    problems.some((problem) => problem.includes('Content Security Policy')),
    'refused by the policy, not by chance',
  )
  await context.close()
})
