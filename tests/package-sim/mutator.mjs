// Makes mutants of a JavaScript source: each differs from it in one place. TypeScript's parser says where.
import ts from 'typescript'

const OTHERS = {
  '===': ['!=='], '!==': ['==='], '&&': ['||'], '||': ['&&'], '??': ['&&'],
  '<': ['<=', '>'], '<=': ['<', '>'], '>': ['>=', '<'], '>=': ['>', '<'], '+': ['-'], '-': ['+'], '*': ['+'],
}

/** What a user reads, and what says which error it is, is not tested word by word. */
const isText = (node) => ts.isStringLiteral(node) || ts.isTemplateExpression(node) || ts.isNoSubstitutionTemplateLiteral(node)

/**
 * All mutants of a source.
 * @returns {{ line: number, what: string, source: string }[]}
 */
export const mutantsOf = (file, source) => {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS)
  const mutants = []
  const add = (from, to, text, what) => {
    const line = tree.getLineAndCharacterOfPosition(from).line + 1
    mutants.push({ line, what, source: source.slice(0, from) + text + source.slice(to) })
  }
  const start = (node) => node.getText(tree).split('\n')[0].slice(0, 70)
  const isNothing = (node) => node.getText(tree) === 'undefined'
  const negate = (condition) => {
    const text = condition.getText(tree)
    // Comparisons have mutants of their own, and so has `!`.
    const isOther = ts.isBinaryExpression(condition) || ts.isPrefixUnaryExpression(condition)
    if (!isOther) add(condition.getStart(tree), condition.end, `!(${text})`, `not: ${text}`)
  }
  const visit = (node) => {
    if (ts.isBinaryExpression(node)) {
      const { operatorToken: operator, left, right } = node
      const symbol = operator.getText(tree)
      const isSum = symbol === '+' && (isText(left) || isText(right))
      for (const other of isSum ? [] : OTHERS[symbol] ?? []) {
        const what = `${other} for ${symbol}`
        // `??` may not stand beside `&&` without parentheses.
        const both = `((${left.getText(tree)}) ${other} (${right.getText(tree)}))`
        if (symbol === '??') add(node.getStart(tree), node.end, both, what)
        else add(operator.getStart(tree), operator.end, other, what)
      }
    } else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
      add(node.getStart(tree), node.operand.getStart(tree), '', 'without !')
    } else if (ts.isIfStatement(node) || ts.isWhileStatement(node)) {
      negate(node.expression)
    } else if (ts.isConditionalExpression(node)) {
      negate(node.condition)
    } else if (ts.isExpressionStatement(node)) {
      const text = node.getText(tree)
      const what = `without: ${start(node)}`
      // A constructor must call `super` first, and a directive does nothing here.
      if (!text.startsWith('super(') && !isText(node.expression)) add(node.getStart(tree), node.end, ';', what)
    } else if (ts.isThrowStatement(node)) {
      add(node.getStart(tree), node.end, ';', `without: ${start(node)}`)
    } else if (ts.isReturnStatement(node) && node.expression && !isNothing(node.expression)) {
      add(node.expression.getStart(tree), node.expression.end, 'undefined', `nothing for: ${start(node.expression)}`)
    } else if (ts.isArrowFunction(node) && !ts.isBlock(node.body) && !isNothing(node.body)) {
      add(node.body.getStart(tree), node.body.end, 'undefined', `nothing for: ${start(node.body)}`)
    }
    ts.forEachChild(node, visit)
  }
  visit(tree)
  return mutants
}
