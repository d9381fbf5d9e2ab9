// Tests of the demo as a visitor uses it.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { startRelay } from '../node/support.mjs'
import { launch } from './support.mjs'

let browser, relay

before(async () => {
  relay = await startRelay({ args: ['--static-dir', process.env.CONFLUX_SITE ?? 'target/demo'] })
  browser = await launch()
})
after(async () => {
  await browser.close()
  await relay.stop()
})

// By default the demo's cluster is a fixed one. The last test passes '' as the size, for an elastic cluster.
const open = async (context, query, size = 'size=3&') => {
  const page = await context.newPage()
  page.on('pageerror', (error) => assert.fail(`the demo threw: ${error.stack}`))
  await page.goto(`http://${relay.address}/?${size}${query}`)
  await page.waitForFunction('window.node !== undefined')
  return page
}

const three = async (contexts, query) => {
  const pages = []
  for (let i = 0; i < 3; i++) pages.push(await open(contexts[i % contexts.length], query))
  await Promise.all(pages.map((page) => page.waitForFunction('node.status().leaderId !== null')))
  return pages
}

const words = (page) => page.$$eval('#words li', (items) => items.map((item) => item.textContent))
const everyoneSees = (pages, check) => Promise.all(pages.map((page) => page.waitForFunction(check)))

describe('the demo', () => {
  it('says how many tabs are missing, and starts when all are open', async () => {
    const context = await browser.newContext()
    const first = await open(context, 'room=begin')
    await first.waitForSelector('h1:has-text("Open 2 more tabs.")')
    const second = await open(context, 'room=begin')
    await first.waitForSelector('h1:has-text("Open one more tab.")')
    await Promise.all([context.waitForEvent('page'), first.click('#open, #welcome button')])
    await Promise.all([first, second].map((page) => page.waitForSelector('#welcome', { state: 'hidden' })))
    await context.close()
  })

  it('shows the list in the same order in all tabs, and all nodes with exactly one leader', async () => {
    const context = await browser.newContext()
    const pages = await three([context], 'room=list')
    for (const [i, page] of pages.entries()) {
      await page.fill('#word', `word ${i}`)
      await page.press('#word', 'Enter')
    }
    await everyoneSees(pages, "document.querySelectorAll('#words li:not(.uncommitted):not(.empty)').length === 3")
    const lists = await Promise.all(pages.map(words))
    assert.deepEqual(lists[1], lists[0])
    assert.deepEqual(lists[2], lists[0])
    await everyoneSees(pages, "document.querySelectorAll('#nodes li').length === 3")
    await everyoneSees(pages, "document.querySelectorAll('#nodes .leads').length === 1")
    for (const page of pages) {
      assert.equal(await page.textContent('#nodes .mine b'), await page.textContent('#me'))
    }
    await pages[0].waitForSelector('#performs .done .took:has-text("ms")')
    await context.close()
  })

  it('lets two tabs play tic-tac-toe: illegal moves are rejected, and other tabs watch', async () => {
    const context = await browser.newContext()
    const [x, o, watcher] = await three([context], 'room=game')
    await x.click('#sit-x')
    await o.waitForFunction('node.getState().game.players.X')
    await o.click('#sit-o')
    await everyoneSees([x, o, watcher], 'node.getState().game.players.O')
    const move = (page, cell) => page.click(`#board button >> nth=${cell}`)
    const refused = async (page, cell, why) => {
      await move(page, cell)
      await page.waitForSelector(`#game-note:has-text("${why}")`)
    }
    await refused(o, 0, 'It is X’s turn.')
    await refused(watcher, 0, 'You are watching.')
    for (const [page, cell] of [[x, 0], [o, 3], [x, 1], [o, 4]]) {
      await move(page, cell)
      await everyoneSees([x, o, watcher], `node.getState().game.cells[${cell}]`)
    }
    await refused(x, 3, 'That square is taken.')
    // By keyboard: from the second square to the third.
    await x.focus('#board button >> nth=1')
    await x.keyboard.press('ArrowRight')
    await x.keyboard.press('Enter')
    await Promise.all([x, o, watcher].map((page) => page.waitForSelector('#game-turn:has-text("X wins")')))
    await refused(o, 5, 'The game is over.')
    await context.close()
  })

  it('pauses and resumes a node, and cuts it off and reconnects it', async () => {
    const context = await browser.newContext()
    const pages = await three([context], 'room=faults')
    for (const button of ['#pause', '#cut']) {
      const leads = await Promise.all(pages.map((page) => page.evaluate("node.status().role === 'leader'")))
      const leader = pages[leads.indexOf(true)]
      const others = pages.filter((page) => page !== leader)
      await leader.click(button)
      await leader.waitForSelector(`${button}[aria-pressed=true]`)
      const word = `without ${button}`
      await others[0].fill('#word', word)
      await others[0].press('#word', 'Enter')
      await everyoneSees(others, `node.getState().words.some(({ word }) => word === '${word}')`)
      assert.equal(await leader.evaluate(`node.getState().words.some(({ word }) => word === '${word}')`), false)
      await leader.click(button)
      await everyoneSees([leader], `node.getState().words.some(({ word }) => word === '${word}')`)
      await everyoneSees(pages, 'node.status().leaderId !== null')
      await Promise.any(pages.map((page) => page.waitForFunction("node.status().role === 'leader'")))
    }
    await context.close()
  })

  it('tells a fourth tab that the cluster is full, and offers to start a fresh one', async () => {
    const context = await browser.newContext()
    const pages = await three([context], 'room=full')
    const fourth = await open(context, 'room=full')
    await fourth.waitForSelector('h1:has-text("This cluster is full.")')
    await fourth.click('#welcome-actions a')
    await fourth.waitForSelector('h1:has-text("Open 2 more tabs.")')
    // A reloaded tab is a new node.
    const name = await pages[0].textContent('#me')
    await pages[0].reload()
    await pages[0].waitForSelector('h1:has-text("This cluster is full.")')
    assert.notEqual(await pages[0].textContent('#me'), name)
    await context.close()
  })

  it('works across browser profiles, through the relay, with ?channel=websocket', async () => {
    const contexts = await Promise.all([browser.newContext(), browser.newContext()])
    const pages = await three(contexts, 'channel=websocket&room=devices')
    await pages[1].fill('#word', 'across')
    await pages[1].press('#word', 'Enter')
    await everyoneSees(pages, "node.getState().words.length === 1")
    await everyoneSees(pages, "document.querySelectorAll('#nodes li:not(.gone)').length === 3")
    await Promise.all(contexts.map((context) => context.close()))
  })

  it('works without a size: with one tab, with tabs that come and go, and after a reload and a crash', async () => {
    const context = await browser.newContext()
    const first = await open(context, 'room=elastic', '')
    const say = async (page, word) => {
      await page.fill('#word', word)
      await page.press('#word', 'Enter')
      await page.waitForSelector(`#words li:not(.uncommitted):text-is("${word}")`)
    }
    await say(first, 'alone')
    const others = [await open(context, 'room=elastic', ''), await open(context, 'room=elastic', '')]
    await say(others[0], 'together')
    await everyoneSees([first, ...others], "document.querySelectorAll('#nodes li:not(.gone)').length === 3")
    await everyoneSees([first, ...others], "document.querySelectorAll('#nodes .leads').length === 1")
    const name = await first.textContent('#me')
    await first.reload()
    await first.waitForSelector('#words li:text-is("together")')
    assert.equal(await first.textContent('#me'), name, 'who sits at the tab stays, too')
    await others[0].click('#crash')
    await others[0].waitForSelector('h1:has-text("This tab is gone.")')
    await say(others[1], 'goes on')
    await others[0].click('#back')
    await others[0].waitForSelector('#words li:text-is("goes on")')
    await Promise.all([first, ...others].map((page) => page.close()))
    const later = await open(context, 'room=elastic', '')
    await later.waitForFunction("node.getState().words.length === 3")
    await later.click('#ending button')
    await later.waitForFunction("window.node?.status().phase === 'member' && node.getState().words.length === 0")
    await context.close()
  })
})
