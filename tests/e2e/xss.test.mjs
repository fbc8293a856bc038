/** Hostile text, in an answer or in what the server tells: it is shown, and never run, loaded or followed. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ask, BASE, launch, open, streamed, TABS } from './browser.mjs'

const RUN = 'globalThis.struck=1'
const TAGS = [
  `<script>${RUN}</script>`,
  `<img src=x onerror="${RUN}">`,
  `<img src="https://example.org/track.png">`,
  `<svg onload="${RUN}"><animate onbegin="${RUN}" attributeName=x dur=1s></svg>`,
  `<svg><script>${RUN}</script></svg>`,
  `<iframe srcdoc="<script>parent.struck=1</script>"></iframe>`,
  `<iframe src="javascript:parent.${RUN}"></iframe>`,
  `<object data="javascript:${RUN}"></object>`,
  `<embed src="data:text/html,<script>${RUN}</script>">`,
  `<details open ontoggle="${RUN}">x</details>`,
  `<video><source onerror="${RUN}"></video>`,
  `<body onload="${RUN}">`,
  `<input autofocus onfocus="${RUN}">`,
  `<marquee onstart="${RUN}">x</marquee>`,
  `<a href="javascript:${RUN}">x</a>`,
  `<form action="javascript:${RUN}"><button>x</button></form>`,
  `<math><mtext><table><mglyph><style><img src=x onerror="${RUN}"></style></mglyph></table></mtext></math>`,
  `<noscript><p title="</noscript><img src=x onerror=${RUN}>"></noscript>`,
  `<style>@import url("https://example.org/x.css"); body { display: none }</style>`,
  `<link rel=stylesheet href="https://example.org/x.css">`,
  `<meta http-equiv="refresh" content="0;url=https://example.org">`,
  `<base href="https://example.org/">`,
  `<template><script>${RUN}</script></template>`,
  `</div></main><script>${RUN}</script>`,
  `<!-- --><script>${RUN}</script><!-- -->`,
  `<![CDATA[<script>${RUN}</script>]]>`,
  `<<script>script>${RUN}<</script>/script>`,
  `<scr\u0000ipt>${RUN}</scr\u0000ipt>`,
  `&lt;script&gt;${RUN}&lt;/script&gt;`,
  `&#60;img src=x onerror=${RUN}&#62;`,
  `{@html "<img src=x onerror=${RUN}>"} {{${RUN}}} \${${RUN}}`,
]
const LINKS = [
  `[x](javascript:${RUN})`,
  `[x](JaVaScRiPt:${RUN})`,
  `[x](javascript&colon;${RUN})`,
  `[x](&#106;avascript:${RUN})`,
  `[x](java\tscript:${RUN})`,
  `[x](\u0001javascript:${RUN})`,
  `[x](<java\\nscript:${RUN}>)`,
  `[x](vbscript:${RUN})`,
  `[x](data:text/html,<script>${RUN}</script>)`,
  `[x](data:text/html;base64,PHNjcmlwdD5zdHJ1Y2s9MTwvc2NyaXB0Pg==)`,
  `[x](blob:https://example.org/1)`,
  `[x](file:///etc/passwd)`,
  `[x](//example.org)`,
  `[x](https://example.org "onmouseover=${RUN}")`,
  `[x](https://example.org/"onmouseover="${RUN})`,
  `[x][ref]\n\n[ref]: javascript:${RUN}`,
  `<javascript:${RUN}>`,
  `![x](javascript:${RUN})`,
  `![x](https://example.org/track.png)`,
  `![x" onerror="${RUN}](x)`,
  `[![x](https://example.org/a.png)](javascript:${RUN})`,
  `[a](https://a.example.org) www.example.org <https://b.example.org>`,
]
const PLACES = [
  '```"><img src=x onerror=' + RUN + '>\ncode\n```',
  '```html\n<script>' + RUN + '</script>\n```',
  '`<img src=x onerror=' + RUN + '>`',
  `| <img src=x onerror=${RUN}> | b |\n|---|---|\n| <script>${RUN}</script> | [x](javascript:${RUN}) |`,
  `# <img src=x onerror=${RUN}>`,
  `> - [ ] <svg onload=${RUN}>`,
  `1. [x](javascript:${RUN})`,
  `**<img src=x onerror=${RUN}>** ~~<script>${RUN}</script>~~`,
  `\u202e<tpircs>\u202c \ufeff<script>${RUN}</script>`,
]
const CORPUS = [...TAGS, ...LINKS, ...PLACES]
const ALLOWED =
  'A BLOCKQUOTE BR BUTTON CODE DEL DIV EM H2 H3 H4 H5 H6 HR LI OL P PRE SPAN STRONG TABLE TBODY TD TH THEAD TR UL'.split(
    ' ',
  )

let browser
before(async () => (browser = await launch()))
after(() => browser.close())

/** What no drawn text may have made: foreign elements, handlers, addresses that run, a struck page. */
function harm(root, allowed) {
  const found = globalThis.struck ? ['code ran'] : []
  for (const element of document.querySelectorAll(`${root} *`)) {
    if (!allowed.includes(element.tagName)) found.push(element.tagName)
    for (const { name, value } of element.attributes) {
      if (name.startsWith('on') || name === 'src' || name === 'srcdoc') found.push(`${element.tagName} ${name}`)
      if (name === 'href' && !/^(https?:|mailto:)/.test(value)) found.push(`href ${value}`)
    }
    if (element.tagName === 'A' && !/noopener/.test(element.rel)) found.push('a link that hands over its window')
  }
  return found
}

test(`an answer may hold any of ${CORPUS.length} attacks`, async () => {
  const pending = [...CORPUS, CORPUS.join('\n\n')]
  const answers = {
    '/v1/chat/completions': (route) => streamed(pending.shift().match(/.{1,7}/gsu))(route),
  }
  const { page, context, problems } = await open(browser, { answers })
  for (const attack of [...CORPUS, 'all of them']) {
    await ask(page, `show ${attack.slice(0, 40)}`)
    const answer = await page.locator('.answer').last().innerText()
    assert.ok(answer.replace(/\s/g, '').length > 10, `shown: ${attack}`)
  }
  for (const link of await page.locator('.answer a').all()) await link.hover({ force: true })
  assert.deepEqual(await page.evaluate(`(${harm})('.answer', ${JSON.stringify(ALLOWED)})`), [])
  assert.deepEqual(problems, [])
  await context.close()
})

test('a question is shown as it was typed', async () => {
  const { page, context, problems } = await open(browser, {
    answers: { '/v1/chat/completions': streamed(['ok ok ok ok']) },
  })
  for (const attack of TAGS.filter((one) => !one.includes('\u0000'))) {
    await ask(page, attack)
    assert.equal(await page.locator('.user').last().textContent(), `You:${attack}`)
  }
  assert.deepEqual(problems, [])
  await context.close()
})

/** value with every text in it replaced by an attack; numbers and the names of fields stay. */
function poisoned(value, attack, keep = []) {
  if (typeof value === 'string') return attack
  if (Array.isArray(value)) return value.map((one) => poisoned(one, attack, keep))
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, keep.includes(name) ? one : poisoned(one, attack, keep)]),
  )
}

test('names, clients and reports of the server are text too', async () => {
  const get = async (path, options) => (await fetch(BASE + path, options)).json()
  const post = (body) => ({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  await get(
    '/v1/chat/completions',
    post({
      model: 'mock/model',
      messages: [{ role: 'user', content: 'x' }],
      max_tokens: 3,
    }),
  )
  const [state, models, plan] = [
    await get('/inferd/state'),
    await get('/v1/models'),
    await get('/inferd/plan', post({ model: 'llama-3-8b', hardware: 'h200' })),
  ]
  assert.ok(state.requests.length > 0)
  for (const attack of TAGS.slice(0, 4)) {
    const hostile = poisoned(state, attack)
    hostile.models[0].cost = {
      per_hour: 1,
      busy: 1,
      idle: 1,
      by_tenant: { [attack]: 1 },
    }
    hostile.requests = hostile.requests.slice(0, 1)
    const answers = {
      '/inferd/state': hostile,
      '/v1/models': poisoned(models, attack),
      '/inferd/plan': (route) =>
        route.request().method() === 'GET'
          ? route.fallback()
          : route.fulfill({ json: poisoned(plan, attack, ['key']) }),
    }
    answers['/v1/models'].data = answers['/v1/models'].data.slice(0, 1)
    const { page, context, problems } = await open(browser, { answers })
    for (const tab of TABS) {
      await page.goto(`${BASE}/#${tab}`)
      await page.waitForTimeout(150)
      if (tab === 'planner') {
        await page.getByRole('button', { name: 'Plan', exact: true }).click()
        await page.locator('details.panel').first().waitFor()
      }
      const elements = await page.evaluate(
        () =>
          document.querySelectorAll(
            'main script, main img, main iframe, main object, main embed, main svg, main [onerror], main [onload]',
          ).length,
      )
      assert.equal(elements, 0, `${tab}: ${attack}`)
    }
    assert.equal(await page.evaluate(() => globalThis.struck), undefined)
    assert.deepEqual(problems, [])
    await context.close()
  }
})
