/** The chat: streams, stops, tells its figures, sends what is set, and copies requests that run. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { ask, BASE, copied, launch, open, streamed } from './browser.mjs'

const PYTHON = process.env.INFERD_E2E_PYTHON ?? 'python3'

let browser
before(async () => (browser = await launch()))
after(() => browser.close())

test('an answer grows as it comes, and tells its figures', async () => {
  const { page, context, problems } = await open(browser)
  await page.getByLabel('Max tokens').fill('200')
  await page.getByLabel('Message', { exact: true }).fill('<pace> tell me')
  await page.keyboard.press('Enter')
  const answer = page.locator('.answer')
  await answer.getByText('tell me').first().waitFor()
  const early = (await answer.innerText()).length
  await page.getByRole('button', { name: 'Send' }).waitFor()
  assert.ok((await answer.innerText()).length > early)
  await answer
    .getByText(/^200 tokens · [\d.,]+ tokens\/s · first token [\d.]+ m?s · prompt \d+.* · cut at the token limit$/)
    .waitFor()
  assert.deepEqual(problems, [])
  await context.close()
})

test('stop ends it on the server too', async () => {
  const { page, context } = await open(browser)
  await page.getByLabel('Message', { exact: true }).fill('<slow> on and on')
  await page.keyboard.press('Enter')
  await page.locator('.answer').getByText('on').first().waitFor()
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.locator('.answer').getByText('stopped').waitFor()
  for (let waited = 0; ; waited += 50) {
    const { models } = await (await fetch(`${BASE}/inferd/state`)).json()
    if (models[0].num_running === 0) break
    assert.ok(waited < 3000, 'the request went on')
    await page.waitForTimeout(50)
  }
  await context.close()
})

test('what is set is sent, and a chat goes on', async () => {
  const bodies = []
  const answer = streamed(['An ', 'answer'])
  const answers = {
    '/v1/chat/completions': (route) => (bodies.push(route.request().postDataJSON()), answer(route)),
  }
  const { page, context } = await open(browser, { answers })
  const set = {
    Temperature: '0.5',
    'Top p': '0.9',
    'Top k': '40',
    'Min p': '0.05',
    'Repetition penalty': '1.1',
    'Max tokens': '64',
    Seed: '7',
  }
  for (const [label, value] of Object.entries(set)) await page.getByLabel(label).fill(value)
  await page.getByLabel('System prompt').fill('Be brief.')
  await page.getByLabel('Stop at').fill('END\nFIN')
  await ask(page, 'first')
  await ask(page, 'second')
  const { messages, model, ...rest } = bodies[1]
  assert.deepEqual(rest, {
    temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05, repetition_penalty: 1.1, max_tokens: 64, seed: 7,
    stop: ['END', 'FIN'], stream: true, stream_options: { include_usage: true },
  }) // prettier-ignore
  assert.equal(model, 'mock/model')
  assert.deepEqual(
    messages.map(({ role, content }) => `${role}: ${content}`),
    ['system: Be brief.', 'user: first', 'assistant: An answer', 'user: second'],
  )
  await context.close()
})

test('copied requests run, and answer what the page was answered', async () => {
  const { page, context } = await open(browser)
  await page.getByLabel('Max tokens').fill('40')
  await page.getByLabel('Top k').fill('5')
  const message = `it's "quoted" $HOME \`date\` ünï`
  await page.getByLabel('Message', { exact: true }).fill(message)
  const command = await copied(page, 'Copy as curl')
  const answer = JSON.parse(
    execFileSync('bash', ['-c', command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  )
  const program = await copied(page, 'Copy as Python')
  const printed = execFileSync(PYTHON, ['-c', program], {
    encoding: 'utf8',
  }).trim()
  assert.equal(printed, answer.choices[0].message.content.trim())
  assert.ok(printed.startsWith(message.slice(0, 20)))
  await context.close()
})

test('an error is told at the answer it befell, and is not sent again', async () => {
  const bodies = []
  const fail = (route) =>
    route.fulfill({
      status: 400,
      json: {
        error: {
          message: 'temperature must be from 0 to 2',
          param: 'temperature',
        },
      },
    })
  const broken = (route) =>
    route.fulfill({
      contentType: 'text/event-stream',
      body: 'data: {"error":{"message":"The engine failed."}}\n\n',
    })
  const cut = (route) =>
    route.fulfill({
      contentType: 'text/event-stream',
      body: 'data: {"choices":[{"delta":{"content":"half"}}]}\n\n',
    })
  const replies = [fail, broken, cut, streamed(['fine'])]
  const answers = {
    '/v1/chat/completions': (route) => (bodies.push(route.request().postDataJSON()), replies[bodies.length - 1](route)),
  }
  const { page, context } = await open(browser, { answers })
  for (const question of ['one', 'two', 'three', 'four']) await ask(page, question)
  const alerts = await page.getByRole('alert').allInnerTexts()
  assert.deepEqual(alerts, [
    'temperature must be from 0 to 2 (temperature)',
    'The engine failed.',
    'The answer broke off: the connection was closed.',
  ])
  assert.deepEqual(
    bodies[3].messages.map((message) => message.content),
    ['three', 'half', 'four'],
  )
  await context.close()
})

test('Enter sends, Shift+Enter does not', async () => {
  const { page, context } = await open(browser, {
    answers: { '/v1/chat/completions': streamed(['done']) },
  })
  await page.getByLabel('Message', { exact: true }).fill('a')
  await page.keyboard.press('Shift+Enter')
  await page.keyboard.type('b')
  await page.keyboard.press('Enter')
  await page.locator('.answer').getByText('done').waitFor()
  assert.equal(await page.locator('.user').textContent(), 'You:a\nb')
  await context.close()
})
