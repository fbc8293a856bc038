import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse, safeHref } from '../src/lib/markdown.js'

const text = (nodes) => nodes.map((node) => node.text ?? text(node.children ?? [])).join('')

test('a link leads to http, https or mail, or is none', () => {
  assert.equal(safeHref('https://example.org/a?b=1'), 'https://example.org/a?b=1')
  assert.equal(safeHref('mailto:a@example.org'), 'mailto:a@example.org')
  for (const href of [
    'javascript:alert(1)',
    ' java\nscript:alert(1)',
    'JAVASCRIPT:x',
    'data:text/html,x',
    'vbscript:x',
    'blob:x',
    'file:///etc',
    '/relative',
    '//host',
    '',
  ]) {
    assert.equal(safeHref(href), null, href)
  }
})

test('tags stay text', () => {
  assert.equal(text(parse('a <b onclick=x>bold</b> <!-- c -->')), 'a <b onclick=x>bold</b> <!-- c -->')
  assert.equal(parse('<script>alert(1)</script>')[0].type, 'text')
})

test('an image becomes a link, never a load', () => {
  const [paragraph] = parse('![alt](https://example.org/x.png)')
  assert.deepEqual(paragraph.children, [
    { type: 'link', href: 'https://example.org/x.png', children: [{ type: 'text', text: 'alt' }] },
  ])
})

test('entities are decoded in text and kept in code', () => {
  assert.equal(text(parse('1 &lt; 2 &amp; &#65;&#x42; &zzz;')), '1 < 2 & AB &zzz;')
  assert.equal(parse('`&lt;`')[0].children[0].text, '&lt;')
})

test('tables, lists and tasks keep their shape', () => {
  const [table] = parse('| a | b |\n|:--|--:|\n| 1 | 2 |\n')
  assert.deepEqual(table.align, ['left', 'right'])
  assert.equal(text(table.rows[0]), '12')
  const [list] = parse('3. x\n4. y\n')
  assert.deepEqual([list.type, list.start, list.children.length], ['ol', 3, 2])
  const [tasks] = parse('- [x] done\n- [ ] open\n')
  assert.deepEqual(
    tasks.children.map((item) => [item.checked, text(item.children)]),
    [
      [true, 'done'],
      [false, 'open'],
    ],
  )
})

test('nesting without end does not end the page', () => {
  for (const nested of [
    '>'.repeat(20_000) + ' x',
    '- '.repeat(3_000) + 'x',
    '['.repeat(5_000),
    '*'.repeat(5_000) + 'x',
  ]) {
    assert.ok(Array.isArray(parse(nested)))
  }
})

test('half of an answer can be drawn: every prefix parses', () => {
  const whole = '# T\n\n```py\nx = 1\n```\n\n| a |\n|---|\n| **b** |\n\n1. [x](https://e.org) `c`\n'
  for (let end = 0; end <= whole.length; end++) assert.ok(Array.isArray(parse(whole.slice(0, end))))
})
