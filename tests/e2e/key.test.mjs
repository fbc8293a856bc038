/** A server with a key: the page loads, asks for it, keeps it in this tab alone, and sends it. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ask, axeViolations, copied, launch, open } from './browser.mjs'

const BASE = process.env.INFERD_E2E_KEYED_URL
const KEY = process.env.INFERD_E2E_KEY

let browser
before(async () => (browser = await launch()))
after(() => browser.close())

test('no figure comes without the key, and a wrong one is refused', async () => {
  const { page, context, response } = await open(browser, {
    base: BASE,
    tab: 'live',
  })
  assert.equal(response.status(), 200)
  await page.getByRole('dialog').waitFor()
  assert.deepEqual(await axeViolations(page), [])
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor()
  await page.getByLabel('Key', { exact: true }).fill('wrong')
  await page.keyboard.press('Enter')
  await page.getByText('The server refused that key.').waitFor()
  assert.equal(await page.getByText('tok/s').count(), 0)
  await context.close()
})

test('with the key everything works, and nothing but this tab remembers it', async () => {
  const { page, context, problems } = await open(browser, {
    base: BASE,
    tab: 'chat',
  })
  await page.getByLabel('Key', { exact: true }).fill(KEY)
  await page.keyboard.press('Enter')
  await page.getByText('connected', { exact: true }).waitFor()
  await ask(page, 'hello with a key')
  await page.locator('.answer').getByText('hello with a key').first().waitFor()
  const kept = await page.evaluate(() => [
    JSON.stringify(sessionStorage),
    JSON.stringify(localStorage),
    document.cookie,
    location.href,
  ])
  assert.deepEqual(
    kept.map((text) => text.includes(KEY)),
    [true, false, false, false],
  )
  for (const name of ['Copy as curl', 'Copy as Python']) {
    const text = await copied(page, name)
    assert.ok(!text.includes(KEY) && text.includes('INFERD_API_KEY'), text)
  }
  assert.ok(
    problems.every((problem) => problem.includes('401')),
    problems.join(),
  ) // the calls before the key came
  await page.reload()
  await page.getByText('connected', { exact: true }).waitFor()
  const other = await context.newPage()
  await other.goto(BASE)
  await other.getByRole('dialog').waitFor()
  await page.getByRole('button', { name: 'Forget key' }).click()
  await page.getByRole('dialog').waitFor()
  await context.close()
})
